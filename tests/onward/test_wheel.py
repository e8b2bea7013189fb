"""The wheel: what is in it, and that it works in an environment of its own, in an empty folder, without a checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.documents import blocks
from tests.onward.notebooks import executed
from tests.sources import REPOSITORY, text_of

pytestmark = pytest.mark.processes
PARTS = ("pipeline", "workers", "launch", "onward", "configs", "pyproject.toml", "README.md", "LICENSE")
SECONDS = 600


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `python -m build` does, from a copy: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("build")
    for name in PARTS:
        source, target = REPOSITORY / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(folder / "source"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return next((folder / "dist").glob("*.whl"))


def test_the_wheel_has_every_file_of_the_packages_and_the_presets(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("pipeline", "workers", "launch", "onward")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    presets = {f"launch/presets/{path.name}" for path in (REPOSITORY / "configs").glob("*.yaml")}
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == there | presets
    assert {name.rpartition("/")[2] for name in metadata} >= {"entry_points.txt", "LICENSE", "NOTICE", "METADATA"}


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Without its dependencies, which are those of this environment, by a path: they have gigabytes."""
    environment, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=SECONDS)
    site = next((environment / "lib").glob("python*/site-packages"))
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(install, check=True, timeout=SECONDS, env=own)
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )

    def call(*command: str) -> str:
        ended = subprocess.run(command, cwd=empty, env=own, capture_output=True, text=True, timeout=SECONDS)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    assert str(site) in call(python, "-c", "import launch, onward; print(launch.__file__, onward.__file__)")
    command = str(environment / "bin" / "onward")
    assert re.fullmatch(r"onward \d+\.\d+\.\d+\n", call(command, "--version"))
    assert "everything is in own" in call(command, "train", "quickstart", "train.max_steps=2", "run_dir=own")
    ten = next(block.text for block in blocks(text_of(REPOSITORY / "README.md")) if "import onward" in block.text)
    (empty / "ten.py").write_text(ten.replace("train__epochs=15", "train__max_steps=3"))
    assert "torch.Size([1, " in call(python, "ten.py")
    executed(empty, {**own, "PATH": f"{environment / 'bin'}{os.pathsep}{own['PATH']}"}, python)
