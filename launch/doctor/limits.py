"""What the system allows a process: memory, cores, open files, shared memory."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from launch.doctor.findings import Finding
from pipeline.data.sets.memory import memory_limits
from workers.run.cores import core_count, cpu_quota, of_control_groups

MIB, GIB = 2**20, 2**30
SHARED_MEMORY = Path("/dev/shm")
RDMA = Path("/sys/class/infiniband")
ENOUGH_FILES, ENOUGH_PROCESSES = 1024, 512
"""Open files of one process, and processes and threads of this user: a run of many stages and data workers."""
ENOUGH_MEMORY = 2 * GIB
UNLIMITED = resource.RLIM_INFINITY


def limits() -> list[Finding]:
    """Every line about this host."""
    has_shm = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0
    hard = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("NOFILE", "NPROC", "MEMLOCK")}
    return [
        memory(memory_limits()),
        cores(core_count(), cpu_quota()),
        shared_memory(has_shm, any(entry.startswith("nvidia") for entry in os.listdir("/dev"))),
        ulimits(hard, process_limit(), RDMA.is_dir() and any(RDMA.iterdir())),
    ]


def memory(bounds: Mapping[str, int]) -> Finding:
    """What can be allocated, of `memory_limits`."""
    if not bounds:
        return Finding("memory", "the system does not say how much is available")
    name, least = min(bounds.items(), key=lambda item: item[1])
    text = f"{least / GIB:.1f} GiB available" + (" within the limit of the control group" if name == "cgroup" else "")
    if least >= ENOUGH_MEMORY:
        return Finding("memory", text)
    more = "Raise the limit of the container or job" if name == "cgroup" else "End other programs"
    return Finding.problem("memory", text, f"{more}; 'onward check CONFIG --memory' says what a run needs")


def cores(count: int, quota: float | None) -> Finding:
    """Cores that may be used, and the control group's quota of them (None if there is none)."""
    if quota is None or quota >= count:
        return Finding("cores", f"{count}")
    remedy = "Raise the quota, or give no run more processes and threads than that: more would be stopped in turns"
    return Finding("cores", f"{count}, of which the control group lets {quota:.1f} work at a time", remedy)


def shared_memory(size: int, has_gpus: bool) -> Finding:
    """The size of /dev/shm; 0 if there is none."""
    text = f"/dev/shm has {size / MIB:.0f} MiB" if size else "there is no /dev/shm"
    if size >= GIB:
        return Finding("/dev/shm", text)
    if has_gpus:
        remedy = (
            "NCCL needs it between GPUs of one host. Give a container --shm-size=8g, a pod a volume 'medium: Memory'"
        )
        return Finding.problem("/dev/shm", text, remedy)
    return Finding("/dev/shm", f"{text}; without GPUs nothing needs it: links are memory without a name")


def ulimits(hard: Mapping[str, int], processes: int | None, has_rdma: bool) -> Finding:
    """Limits of one process.

    Args:
        hard: limit by name (NOFILE, NPROC: numbers; MEMLOCK: bytes); -1 for none.
        processes: of the control group; None if there is none.
        has_rdma: whether there are network cards that write to locked memory.
    """
    files, memlock = hard["NOFILE"], hard["MEMLOCK"]
    threads = min((limit for limit in (hard["NPROC"], processes) if limit not in (UNLIMITED, None)), default=UNLIMITED)
    text = f"open files {_number(files)}, processes {_number(threads)}, locked memory "
    text += "unlimited" if memlock == UNLIMITED else f"{memlock / MIB:.1f} MiB"
    if files != UNLIMITED and files < ENOUGH_FILES:
        return Finding.problem("limits", text, f"Raise the open files to {ENOUGH_FILES} or more: ulimit -n")
    if threads != UNLIMITED and threads < ENOUGH_PROCESSES:
        remedy = f"Raise the processes to {ENOUGH_PROCESSES} or more: ulimit -u, or the container's --pids-limit"
        return Finding.problem("limits", text, remedy)
    if has_rdma and memlock != UNLIMITED:
        remedy = "NCCL needs locked memory for InfiniBand: ulimit -l unlimited, in a container --ulimit memlock=-1"
        return Finding.problem("limits", text, remedy)
    return Finding("limits", text)


def process_limit() -> int | None:
    """Processes and threads that the control groups of this process allow; None without a limit (version 2)."""
    return min((int(text) for text in of_control_groups("pids.max") if text != "max"), default=None)


def _number(limit: int | None) -> str:
    return "unlimited" if limit is None or limit == UNLIMITED else f"{limit:,}"
