"""The environment of a run's processes: what is set, and what of the surroundings is removed. Does not import torch."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from workers.run.cores import usable_cores
from workers.run.private import cache_settings, use_own_folders

ALLOCATOR = {
    # glibc returns large blocks to the kernel at every free. The page faults of the next allocation then cost more
    # than the arithmetic, so memory that was allocated once is kept.
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}
PASSIVE_WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Threads of OpenMP sleep while they wait for each other, where they would otherwise keep cores from who computes."""
WAITS = (*PASSIVE_WAITS, "GOMP_SPINCOUNT")
"""Variables by which users decide it themselves."""
METRICS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""Switches the Prometheus library to metrics of several processes when it is imported; ours come from one process."""
PREPARED = "ONWARD_RUN_DIR"
"""Set in processes that `onward train` has started: it prepared the run directory, and talks to the user."""
BY_HOSTS = "ONWARD_BY_HOSTS"
"""Set in ranks that `onward train --hosts` has started."""
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Inherited by programs that our processes start, such as PyTorch's compilers: see `interpreter`."""
UNWANTED = (*METRICS, "TORCH_GLOO_LAZY_INIT")
"""Variables that are removed. The last delays Gloo's connections until its port is filtered (`links.listening`)."""
OPEN_FILES = 1 << 20
"""Default of fs.nr_open, the most open files that Linux allows one process."""
LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+|SLURM_(PROCID|STEP_ID)|"
    "ONWARD_BY_HOSTS|ONWARD_KEY_FILE"
)
"""Set for the ranks of a job by torchrun, PyTorchJob, srun or `onward train --hosts`; `onward train` has no ranks."""
PACKAGES_FOLDER = str(Path(__file__).resolve().parents[2])
"""The folder that contains our packages."""


def process_environment(threads: int, processes: int = 1) -> dict[str, str]:
    """The environment of this process, with settings for the allocator, the threads, the caches and the modules.

    Args:
        threads: number of threads of PyTorch's operations.
        processes: that compute with as many threads on this host at the same time.
    """
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    settings = {**ALLOCATOR, **SAFE_PATH, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": module_path()}
    # Ranks of torchrun learn their number of threads later; and of a single thread, none waits.
    if max(threads, 2) * processes > usable_cores() and not any(name in kept for name in WAITS):
        settings |= PASSIVE_WAITS
    return {**kept, **cache_settings(kept), **settings}


def start_anew_with_allocator(module: str) -> None:
    """Start this process anew with the allocator's settings, which are read only at the start; torchrun sets none.

    Args:
        module: that this process was started with; to be called before it imports torch, which takes seconds.
    """
    if not ALLOCATOR.keys() <= os.environ.keys():
        threads = first_number(os.environ.get("OMP_NUM_THREADS", ""), otherwise=1)
        ranks = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_TASKS_PER_NODE", "")
        environment = process_environment(threads, first_number(ranks, otherwise=1))
        os.execve(sys.executable, interpreter(module, *sys.argv[1:]), environment)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without the variables of a job launcher.

    The command may have been given inside a job, to whose ranks the run's processes do not belong.
    """
    return {name: value for name, value in environment.items() if not LAUNCHERS.fullmatch(name)}


def launcher() -> str:
    """What has started this process as one of several ranks: `srun`, `onward train --hosts`, otherwise `torchrun`."""
    if BY_HOSTS in os.environ:
        return "onward train --hosts"
    alone = "SLURM_STEP_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    return "srun" if alone else "torchrun"


def launch_command(module: str, count: object) -> str:
    """The beginning of the command that starts `count` ranks with the launcher that has started this process."""
    if launcher() == "srun":
        return f"srun --ntasks={count} python -m {module}"
    return f"torchrun --nproc-per-node={count} -m {module}"


def own_python() -> str:
    """The path of the interpreter that runs this process, to be shown or looked for elsewhere."""
    return sys.executable


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command line to run one of our modules in a new interpreter, without the working directory on its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_path() -> str:
    """The module search path of this process, for `PYTHONPATH`.

    The working directory is left out unless `PYTHONPATH` names it.
    """
    configured = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.path.realpath(os.curdir)
    folders = [os.path.abspath(entry) for entry in sys.path if os.path.isdir(entry or os.curdir)]
    wanted = {PACKAGES_FOLDER, *(os.path.abspath(entry) for entry in configured if entry)}
    return os.pathsep.join(folder for folder in folders if os.path.realpath(folder) != here or folder in wanted)


def clean_environment() -> None:
    """Remove variables that would silently change a run; to be called before other imports."""
    for name in UNWANTED:
        os.environ.pop(name, None)
    os.environ.update(SAFE_PATH)
    use_own_folders()
    allow_open_files()


def allow_open_files() -> None:
    """Raise the limit on open files to the allowed maximum: connections of strangers to our ports use some up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if resource.RLIM_INFINITY != soft < wanted:
        with suppress(OSError, ValueError):  # the kernel allows fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def disable_core_dumps() -> None:
    """Write no core dump when this process or its children crash: the memory holds the key of the run."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def first_number(text: str, otherwise: int) -> int:
    """The first number of a list as OpenMP takes them, such as `4,2`."""
    found = re.match(r"\s*(\d+)", text)
    return int(found[1]) if found else otherwise
