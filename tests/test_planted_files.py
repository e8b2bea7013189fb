"""What lies around a run: files in the working directory, and folders that somebody else has prepared for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.recovery import python
from tests.runs import LIMIT, TINY
from tests.strangers import needs_stranger, stranger
from workers.run.private import CACHES, NO_HEADERS

pytestmark = pytest.mark.processes

NAMES = (
    "json", "random", "logging", "socket", "typing_extensions", "sympy", "numpy", "yaml", "pydantic", "safetensors",
    "torch", "launch", "workers", "pipeline", "sitecustomize",
)  # fmt: skip
"""Of the standard library, of what torch and we depend on, of ours."""
PROGRAMS = Path(sys.executable).parent
RUN = ("train.max_steps=2", "metrics.enabled=false", "data.workers=1")


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A working directory with modules and packages of those names, each of which leaves a mark when it is run."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in NAMES:
        code = f"import os\nopen({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + ' ')\n"
        (folder / f"{name}.py").write_text(code)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
        (folder / name / "__main__.py").write_text(code)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return folder


def run_in(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    dropped = ("PYTHONPATH", *CACHES, *NO_HEADERS)  # PyTorch has set some of them in this process
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | more
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


@pytest.mark.parametrize("runtime", ["pipelined", pytest.param("serial", marks=pytest.mark.slow)])
def test_what_lies_in_the_working_directory_is_not_run(runtime: str, planted: Path, tmp_path: Path) -> None:
    arguments = (str(tmp_path / "tiny.yaml"), f"run_dir={tmp_path / 'run'}", *RUN, f"runtime={runtime}")
    done = run_in(planted, str(PROGRAMS / "onward"), "train", *arguments)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("safe", [True, False])
def test_nor_by_the_ranks_of_torchrun(safe: bool, planted: Path, tmp_path: Path) -> None:
    """torchrun starts `python -m launch.train`, which finds a folder `launch` unless Python is told not to look."""
    if not safe:
        (planted / "launch.py").unlink()
        shutil.rmtree(planted / "launch")
    arguments = (str(tmp_path / "tiny.yaml"), f"run_dir={tmp_path / 'run'}", *RUN, "processes=1")
    command = (str(PROGRAMS / "torchrun"), "--standalone", "--nproc-per-node=1", "-m", "launch.train", *arguments)
    done = run_in(planted, *command, OMP_NUM_THREADS="1", **({"PYTHONSAFEPATH": "1"} if safe else {}))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()


COMPILES = """
from workers.run.environment import clean_environment
clean_environment()
import torch
print(torch.compile(lambda x: (2 * x + 1).sum())(torch.ones(1)).item())
"""


@pytest.mark.slow
@needs_stranger
def test_a_cache_that_a_stranger_has_prepared_is_neither_read_nor_written(tmp_path: Path) -> None:
    """What lies there was unpickled, and so run, by whoever compiled next."""
    shared = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    shared.chmod(0o1777)
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        names = (Path(default_cache_dir()).name, f"onward_{os.geteuid()}")
        for name in names:
            subprocess.run(stranger("mkdir", "-m", "777", str(shared / name)), check=True)
        repository = str(Path(__file__).parents[1])
        done = run_in(tmp_path, *python("-P", "-c", COMPILES), TMPDIR=str(shared), PYTHONPATH=repository)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "3.0\n"
        assert [list((shared / name).iterdir()) for name in names] == [[], []]
    finally:
        shutil.rmtree(shared)


READ_ONLY = """
set -e
for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,ro,bind $place; done
mount -t tmpfs tmpfs "$HOME_OF_TEST"; mkdir "$HOME_OF_TEST/here"; cd "$HOME_OF_TEST/here"
"$@"
ls -A
"""
IN_A_NAMESPACE = ("unshare", "--mount", "bash", "-c", READ_ONLY, "bash")


def _may_mount() -> bool:
    if os.geteuid() or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_nothing_is_left_in_the_working_directory_where_tmp_is_read_only(tmp_path: Path) -> None:
    if not _may_mount():
        pytest.skip("only root, where it may mount, can make /tmp read-only")
    home = Path(tempfile.mkdtemp(prefix="onward-test-", dir="/var/lib"))
    try:
        (tmp_path / "tiny.yaml").write_text(TINY)
        arguments = (str(tmp_path / "tiny.yaml"), f"run_dir={home}/run", *RUN)
        done = run_in(
            tmp_path, *IN_A_NAMESPACE, str(PROGRAMS / "onward"), "train", "-q", *arguments, HOME_OF_TEST=str(home)
        )
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if line.startswith(("torchinductor", "onward", "tmp"))] == []
    finally:
        shutil.rmtree(home)
