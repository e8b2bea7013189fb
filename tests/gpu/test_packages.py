"""What an interpreter lacks is said before anything needs it, a line each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import packages
from tests.runs import ROOT


def test_this_interpreter_lacks_nothing() -> None:
    assert packages.problems() == []
    named = [packages.name_of(line) for line in packages.requirements()]
    assert {"torch", "torchvision", "pydantic", "pyyaml", "setproctitle", "pytest"} <= set(named)
    assert packages.NOT_NEEDED.isdisjoint(named)


def test_what_is_missing_or_too_old_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "requirements", lambda: ["no-such-package>=2.7", "pyyaml>=6.0", "pydantic>=99.1"])
    missing, old = packages.problems()
    assert missing.startswith("error: no-such-package is missing. Install it (")
    assert f"{sys.executable} -m pip install 'no-such-package>=2.7'" in missing
    assert "PYTHONPATH" in missing
    assert old.startswith("error: pydantic is ")
    assert "too old" in old


def test_a_package_that_lacks_one_of_its_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("import what_it_needs_itself\n")
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = packages.problem("half-there>=1.0")
    assert line.startswith("error: half-there cannot be imported: No module named 'what_it_needs_itself'. ")


@pytest.mark.processes
def test_make_gpu_takes_an_interpreter_as_it_is_and_names_what_it_lacks(tmp_path: Path) -> None:
    """Here one that looks for no packages, without a .venv beside it."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    command = ["make", "--no-print-directory", "gpu", f"PYTHON={bare}", "DEVICE=cpu", "SMALL=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert "error: torch is missing. " in done.stderr
    assert "error: setproctitle is missing. " in done.stderr
    assert lines == [line for line in lines if line.startswith("error: ")]
    assert "pip" not in done.stdout
