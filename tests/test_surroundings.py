"""What lies around a command changes nothing of its run: variables of a job, of a shell, of a service, other files."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import STEPS, undisturbed
from tests.runs import LIMIT, ROOT, TINY, report

JOB = {
    "RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "0", "ROLE_RANK": "0",
    "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "3",
    "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True", "SLURM_PROCID": "0", "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0", "SLURM_TASKS_PER_NODE": "4", "SLURM_DISTRIBUTION": "cyclic", "SLURM_JOB_ID": "7",
    "SSH_CONNECTION": "192.0.2.7 50022 192.0.2.1 22",
}  # fmt: skip
"""What a pod of a PyTorchJob, a task of Slurm, and a login by ssh have in their environment."""
SHADOWS = ("random", "queue", "secrets", "pipeline", "workers", "launch", "torch", "numpy")


def long_folder(folder: Path) -> dict[str, str]:
    path = folder / ("t" * 120)
    path.mkdir()
    return {"TMPDIR": str(path)}


SURROUNDINGS: dict[str, Callable[[Path], dict[str, str]]] = {
    "a job": lambda folder: JOB,
    "a list of threads": lambda folder: {"OMP_NUM_THREADS": "4,2"},
    "no number of threads": lambda folder: {"OMP_NUM_THREADS": ""},
    "the metrics of a web service": lambda folder: {"PROMETHEUS_MULTIPROC_DIR": str(folder / "gone")},
    "a long folder for temporary files": long_folder,
    "an environment of 300 kB": lambda folder: {f"BASH_FUNC_module_{n}%%": "x" * 10_000 for n in range(30)},
    "no home": lambda folder: {"HOME": str(folder / "nobody"), "XDG_CACHE_HOME": str(folder / "nobody" / "cache")},
    "called by sudo": lambda folder: {"SUDO_UID": "12345"},
    "no terminal": lambda folder: {"TERM": "", "COLUMNS": "0", "LINES": "-1", "NO_COLOR": "1", "FORCE_COLOR": "1"},
    "a notebook": lambda folder: {"JPY_PARENT_PID": "7", "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "another language": lambda folder: {"LC_ALL": "tr_TR.UTF-8", "LANG": "C", "PYTHONIOENCODING": "ascii"},
    "Python told otherwise": lambda folder: {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "1"},
    "what our own processes are told": lambda folder: {"ONWARD_RUN_DIR": "/nowhere", "ONWARD_START_STEP": "7"},
    "no GPU and another compiler": lambda folder: {"CUDA_VISIBLE_DEVICES": "", "CXX": "/nowhere/c++"},
}
KINDS = ["all at once", *(slow(name) for name in SURROUNDINGS)]


@pytest.mark.processes
@pytest.mark.parametrize("runtime", ["pipelined", slow("serial")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_same_whatever_lies_around(tmp_path: Path, kind: str, runtime: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    for name in SHADOWS:  # in the working directory, where people have files of such names
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported from the working directory')\n")
    around: dict[str, str] = {}
    for name, variables in SURROUNDINGS.items():
        if kind in (name, "all at once"):
            around |= variables(tmp_path)
    command = [sys.executable, "-P", "-m", "launch.cli", "train", "tiny.yaml", "run_dir=run", f"runtime={runtime}"]
    environment = {name: value for name, value in os.environ.items() if name not in around}
    ended = subprocess.run(
        [*command, *STEPS], cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT), **around},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert report(tmp_path)["final_digest"] == undisturbed()
    left = {path.name for path in tmp_path.iterdir()} - {f"{name}.py" for name in SHADOWS}
    assert left - {"t" * 120} == {"tiny.yaml", "run"}, "nothing is written elsewhere"


ELSEWHERE = {
    "PYTHONPATH": "documented: where a configuration's own modules are looked for",
}
"""Variables that are read, and that are no surroundings that a test could put there."""


def variables_read() -> Iterator[str]:
    """Names that our sources ask the environment for, as literals."""
    for path in (
        path for package in ("pipeline", "workers", "launch", "onward") for path in (ROOT / package).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[ast.expr] = []
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                names = [node.slice]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv"):
                names = node.args[:1]
            elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
                names = [node.left]
            yield from (name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str))


def test_every_variable_that_is_read_is_among_the_surroundings(tmp_path: Path) -> None:
    put = {name for variables in SURROUNDINGS.values() for name in variables(tmp_path)}
    assert set(variables_read()) <= put | ELSEWHERE.keys()
