"""Whether the processes that a launcher started fit the run, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from launch.prepare.start_commands import Endpoint, shares, srun_command, torchrun_commands, what_is_even
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from workers.run.environment import first_number, launch_command, launcher
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


def check_processes(config: Config, group: RunGroup, arguments: Sequence[str] = ()) -> None:
    """Check the processes that torchrun or srun started against the run.

    Args:
        config: of the run.
        group: the processes.
        arguments: of this one: CONFIG, and what follows it.

    Raises:
        UserError: there are more or fewer than it needs.
        ConfigError: a value that does not fit them.
    """
    count, by = len(training_processes(config)), launcher()
    if group.world_size != count:
        raise UserError(
            f"this run needs {count} process{'es' if count > 1 else ''} (one per stage, or per replica of a stage) and "
            f"{by} started {group.world_size}{_how_many(count, group, arguments)}, or other model.cuts, processes or "
            "replicas"
        )
    _check_restart(config, by)
    if _may_restart() and config.run_dir is None:
        problem = "is not given, and a restarted run must find what the one before left (--max-restarts)"
        raise ConfigError("run_dir", problem, "Give run_dir=FOLDER")
    if not group.on_one_host:
        _check_link(config)


def check_for_hosts(config: Config, several: bool) -> None:
    """What `check_processes` will refuse, before anything is started.

    Args:
        config: of the run.
        several: there will be more than one host.

    Raises:
        UserError: the run trains in one process.
        ConfigError: a value that torchrun and srun, or several hosts, cannot have.
    """
    check_pipelined(config)
    _check_restart(config, "torchrun")
    if several:
        _check_link(config)


def check_pipelined(config: Config) -> None:
    """Raises `UserError` if the run trains in one process, which cannot be on several hosts."""
    if config.in_one_process:
        raise UserError(
            "--hosts: this run trains in one process (runtime=serial or mode=end_to_end). Leave out --hosts, or give "
            "runtime=pipelined"
        )


def _check_restart(config: Config, by: str) -> None:
    if config.restart == "stage":
        problem, remedy = f"got 'stage', and {by} restarts all processes or none", "start the run with 'onward train'"
        instead = "Let Slurm requeue the job" if by == "srun" else "Give it --max-restarts"
        raise ConfigError("restart", problem, f"{instead}, or {remedy}")


def _check_link(config: Config) -> None:
    if config.link.kind == "queue":
        problem = "got 'queue', which is shared memory, and the processes are on several hosts"
        raise ConfigError("link.kind", problem, "Give auto, p2p or rpc")
    if config.link.kind == "rpc" and set(config.link.rpc_transports) == {"shm"}:
        problem = "got [shm], which is shared memory, and the processes are on several hosts"
        raise ConfigError("link.rpc_transports", problem, "Add uv")


def _how_many(count: int, group: RunGroup, arguments: Sequence[str]) -> str:
    """Follows on the number of processes that were started: on how many hosts, and what to give instead."""
    by, hosts = launcher(), 1 if group.on_one_host else _hosts_started()
    if hosts == 1 or by not in ("srun", "torchrun") or not arguments:
        return f". Give {'--ntasks' if by == 'srun' else '--nproc-per-node'}={count}"
    counts = shares(count, min(hosts, count))
    if by == "srun":
        return f" on {hosts} hosts. Give: {srun_command(counts, arguments)}"
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    endpoint = Endpoint(os.environ["MASTER_ADDR"], Path(arguments[0]).stem if run_id == "none" else run_id)
    commands = torchrun_commands(counts, endpoint, arguments)
    where = "on every host" if len(commands) == 1 else "on one host each"
    even = f" (evenly it runs on {what_is_even(count)})" if len(commands) > 1 and what_is_even(count) else ""
    return f" on {hosts} hosts. Give {where}{even}: {'; '.join(commands)}"


def _hosts_started() -> int:
    """The number of hosts, as the launcher says; 1 if it does not."""
    names = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES") if launcher() == "srun" else ("GROUP_WORLD_SIZE",)
    return next((first_number(os.environ[name], otherwise=1) for name in names if name in os.environ), 1)


def check_alone(config: Config) -> None:
    """Raises `UserError` if the run needs more processes than this one."""
    count = len(training_processes(config))
    if not config.in_one_process:
        raise UserError(
            f"a pipelined run needs {count} processes. Start it with 'onward train', with "
            f"'{launch_command('launch.train', count)}', or give runtime=serial"
        )
