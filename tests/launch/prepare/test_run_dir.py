"""The run directory: claimed once, written atomically, read back equal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import launch.prepare.run_dir
from launch.prepare.run_dir import begin_run, check_run_dir, claim_run, read_config
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import parse_config
from workers.run.files import RunDir, write_json


def into(path: Path) -> Config:
    return parse_config({"seed": 3, "run_dir": str(path)})


def create(config: Config, name: str = "any") -> Path:
    """A run directory as a command makes it."""
    with claim_run(config, name) as claimed:
        begin_run(config, claimed.run.path)
    return claimed.run.path


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_the_default_name_tells_config_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [create(Config(), "quickstart") for _ in range(3)]
    assert len(set(runs)) == 3
    for run in runs:
        assert re.fullmatch(r"runs/quickstart-\d{8}-\d{6}(-\d)?", str(run))


def test_a_new_run_holds_its_configuration_and_a_place_for_logs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    assert create(into(path), "any") == path
    assert sorted(os.listdir(path)) == [".lock", "config.yaml", "coordinator.json", "logs"]
    assert read_config(path) == into(path)


def test_the_configuration_of_a_run_says_where_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = create(parse_config({"seed": 9}), "name")
    assert read_config(run) == parse_config({"seed": 9, "run_dir": str(run.absolute())})


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    create(into(tmp_path), "any")
    assert read_config(tmp_path).seed == 3


def test_what_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    (tmp_path / "file").write_text("...")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"not empty \(it holds 'file'\).*Give another run_dir"):
        create(into(tmp_path), "any")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=rf"'{tmp_path / 'file'}' is not a folder"):
            create(into(path), "any")
    assert tree(tmp_path) == before


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the system is stood in for."""
    monkeypatch.setattr(launch.prepare.run_dir.os, "access", lambda _path, _mode: False)
    with pytest.raises(ConfigError, match=rf"^run_dir: you may not write in '{tmp_path}'"):
        check_run_dir(into(tmp_path / "run"))


def test_a_full_disk_is_bad_input_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        create(into(tmp_path / "run"), "any")
    assert tree(tmp_path) == {}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"loss": 1.5})
    monkeypatch.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_json(path, {"loss": 2.5})
    assert json.loads(path.read_text()) == {"loss": 1.5}
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no config.yaml"),
        (lambda path: (path.mkdir(), (path / "config.yaml").write_text("sed: 1")), "sed: unknown key.*'seed'"),
    ],
)
def test_what_is_not_a_run_cannot_be_read(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "run")


def test_where_things_are() -> None:
    run = RunDir(Path("r"))
    names = ["config", "metrics", "final", "backbone", "logs", "report", "failure", "coordinator", "lock"]
    assert [str(getattr(run, name)) for name in names] == [
        "r/config.yaml",
        "r/metrics.jsonl",
        "r/final",
        "r/final/backbone.safetensors",
        "r/logs",
        "r/report.json",
        "r/failure.json",
        "r/coordinator.json",
        "r/.lock",
    ]


def test_a_run_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(into(tmp_path / "run"))

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"run' cannot be read \(Permission denied\)"):
        read_config(run)
