"""Whether the processes that a launcher started fit the run, checked before anything is written."""

from __future__ import annotations

import os

from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from workers.run.environment import launch_command, launcher
from workers.topology.processes import training_processes
from workers.topology.torchrun import RunGroup


def check_torchrun() -> None:
    """Raises `UserError` if torchrun would restart with its old store, which holds the addresses of dead processes."""
    if _may_restart() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            "torchrun would restart this run with the addresses of the dead processes (--max-restarts, pytorch issue "
            "135712). Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun on every host and use "
            "--standalone or --rdzv-backend=c10d, or give --max-restarts=0"
        )


def _may_restart() -> bool:
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def check_processes(config: Config, group: RunGroup) -> None:
    """Raises `UserError` if the run does not fit the processes that torchrun or srun started."""
    count, by = len(training_processes(config)), launcher()
    if group.world_size != count:
        raise UserError(
            f"this run needs {count} processes (one per stage, or per replica of a stage) and {by} started "
            f"{group.world_size}. Give {'--ntasks' if by == 'srun' else '--nproc-per-node'}={count}, or other "
            "model.cuts, processes or replicas"
        )
    if config.restart == "stage":
        problem, remedy = f"got 'stage', and {by} restarts all processes or none", "start the run with 'onward train'"
        instead = "Let Slurm requeue the job" if by == "srun" else "Give it --max-restarts"
        raise ConfigError("restart", problem, f"{instead}, or {remedy}")
    if _may_restart() and config.run_dir is None:
        problem = "is not given, and a restarted run must find what the one before left (--max-restarts)"
        raise ConfigError("run_dir", problem, "Give run_dir=FOLDER")
    if not group.on_one_host and config.link.kind == "queue":
        problem = "got 'queue', which is shared memory, and the processes are on several hosts"
        raise ConfigError("link.kind", problem, "Give auto, p2p or rpc")
    if not group.on_one_host and config.link.kind == "rpc" and set(config.link.rpc_transports) == {"shm"}:
        problem = "got [shm], which is shared memory, and the processes are on several hosts"
        raise ConfigError("link.rpc_transports", problem, "Add uv")


def check_alone(config: Config) -> None:
    """Raises `UserError` if the run needs more processes than this one."""
    count = len(training_processes(config))
    if not config.in_one_process:
        raise UserError(
            f"a pipelined run needs {count} processes. Start it with 'onward train', with "
            f"'{launch_command('launch.train', count)}', or give runtime=serial"
        )
