"""What is found wrong with trackers before anything starts."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from pipeline.config.observing import TrackerConfig as Settings
from pipeline.errors import ConfigError
from workers.observing.trackers import check_trackers


def test_a_bundled_one_that_is_there_twice() -> None:
    once = Settings(kind="tensorboard")
    with pytest.raises(ConfigError, match=r"trackers\.2\.kind: 'tensorboard' is there twice"):
        check_trackers([once, Settings(kind="tests:A"), once])
    check_trackers([Settings(kind="tests:A"), Settings(kind="tests:A"), once])


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers([Settings(kind="tensorboard")])
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    (tmp_path / "tensorboard").mkdir()  # where TensorBoard's files may lie
    (tmp_path / "own_trackers.py").write_text("raise SystemExit('it is not imported')")
    with pytest.raises(ConfigError, match=r"trackers\.1\.kind: .* Install it: pip install 'onward\[tensorboard\]'"):
        check_trackers([Settings(kind="own_trackers:A"), Settings(kind="tensorboard")])
    with pytest.raises(ConfigError, match=r"trackers\.1\.kind: there is no module 'my_own' on Python's path or in"):
        check_trackers([Settings(kind="own_trackers:A"), Settings(kind="my_own.trackers:A")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])
    check_trackers([Settings(kind="own_trackers:A")])
