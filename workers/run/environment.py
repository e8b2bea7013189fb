"""What a process of a run is started with, and what of its surroundings must not change it; known without torch."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from workers.run.private import cache_settings, use_own_folders

ALLOCATOR = {
    # glibc gives big blocks back to the kernel at every free, and the page faults then cost more
    # than the arithmetic: keep what was once allocated.
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}
METRICS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""For the metrics of a web server of several processes; the library obeys it when it is imported. Ours are of one."""
PREPARED = "ONWARD_RUN_DIR"
"""Set in processes whose user is served by the command line, which also made the run directory."""
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Also for what our processes start themselves, such as the compilers of PyTorch: see `interpreter`."""
SURPRISES = (*METRICS, "TORCH_GLOO_LAZY_INIT")
"""What must not be set: with the last one Gloo connects when its port is closed already (`workers.links.listening`)."""
OPEN_FILES = 1 << 20
"""What Linux itself allows at most unless it is told otherwise."""
LAUNCHERS = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+")
"""What torchrun, and the pods of a PyTorchJob, tell the ranks of a job; `onward train` is none of them."""
OWN = str(Path(__file__).resolve().parents[2])
"""The folder that our packages lie in."""


def process_environment(threads: int) -> dict[str, str]:
    """Ours, with the allocator's settings, the thread count of a stage, and our own modules.

    Args:
        threads: of PyTorch's operations.
    """
    kept = {name: value for name, value in os.environ.items() if name not in SURPRISES}
    own = {**ALLOCATOR, **SAFE_PATH, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": module_path()}
    return {**kept, **cache_settings(kept), **own}


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for processes that belong to a run, and not to whatever job the command was given in."""
    return {name: value for name, value in environment.items() if not LAUNCHERS.fullmatch(name)}


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours in a new interpreter, whatever lies in the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_path() -> str:
    """Where this process looks for modules, for `PYTHONPATH`; not in the working directory unless it was told to."""
    told = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.path.realpath(os.curdir)
    folders = [os.path.abspath(entry) for entry in sys.path if os.path.isdir(entry or os.curdir)]
    wanted = {OWN, *(os.path.abspath(entry) for entry in told if entry)}
    return os.pathsep.join(folder for folder in folders if os.path.realpath(folder) != here or folder in wanted)


def leave_surroundings() -> None:
    """Drop from this process what would change a run without a word; called before anything else is imported."""
    for name in SURPRISES:
        os.environ.pop(name, None)
    os.environ.update(SAFE_PATH)
    use_own_folders()
    allow_open_files()


def allow_open_files() -> None:
    """As many as the system lets this user have: whoever opens connections to a port of ours uses them up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if resource.RLIM_INFINITY != soft < wanted:
        with suppress(OSError, ValueError):  # more than the kernel allows now
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def leave_no_core_dump() -> None:
    """A process that holds the run's key, and all that it starts, must not leave it in a file when it crashes."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def first_number(text: str, otherwise: int) -> int:
    """The first number of a list as OpenMP takes them, such as `4,2`."""
    found = re.match(r"\s*(\d+)", text)
    return int(found[1]) if found else otherwise
