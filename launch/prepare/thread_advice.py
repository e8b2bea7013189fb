"""What a better number of threads would be, for stages that compute on the CPU. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.config import Config
from workers.run.cores import usable_cores
from workers.run.environment import first_number
from workers.topology.processes import training_processes


def process_count(config: Config) -> int:
    """Training processes of a run, on all hosts."""
    return 1 if config.in_one_process else len(training_processes(config))


def ranks_here() -> int | None:
    """Training processes that a launcher has started on this host, of a run on several; None if it does not say."""
    return first_number(os.environ.get("LOCAL_WORLD_SIZE", ""), otherwise=0) or None


def thread_advice(config: Config, devices: Sequence[str], processes: int, cores: int | None = None) -> list[str]:
    """A sentence where fewer threads, or more, would suit the cores; none where they do.

    Args:
        config: of the run.
        devices: of the stages.
        processes: that train on this host.
        cores: that they may use together; those of this process if not given.
    """
    if set(devices) != {"cpu"}:
        return []
    cores = usable_cores() if cores is None else cores
    is_given = "threads" in config.model_fields_set
    taken, best = processes * config.threads, max(cores // processes, 1)
    if config.mode == "end_to_end" and config.num_stages > 1 and not is_given and cores > 1:
        return [
            f"mode=end_to_end trains all {config.num_stages} blocks in one process on one thread, where a pipeline has "
            f"a process for each: before you compare how fast they are, give threads={cores}, as many as there are "
            "cores"
        ]
    if taken > cores and config.threads > 1:
        return [
            f"{_counted(processes, 'process', 'processes')} with threads={config.threads} want {taken} cores, and "
            f"{_counted(cores, 'core is', 'cores are')} to be had on this host: threads={best} would be faster"
        ]
    if not is_given and not config.in_one_process and best > 1:
        return [
            f"{cores} cores are to be had on this host, and {processes} processes with threads=1 use {processes} of "
            f"them: threads={best} may be faster (the number of threads changes the last bits of what is trained)"
        ]
    return []


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
