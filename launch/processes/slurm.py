"""What srun tells its tasks, in torchrun's variables: `srun --ntasks=PROCESSES python -m launch.train CONFIG`.

srun starts one task a process and tells each its number, but not where they meet. That is rank 0 on the first node of
the step, at a port that follows from the number of the job. Whatever torchrun, or the user, has said wins. A shell or a
batch script of a job is no task of srun: what is started there alone stays alone.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress

from launch.prepare.ports import resolves
from pipeline.errors import UserError
from workers.run.environment import first_number
from workers.topology.joining import under_torchrun

PORTS = range(15000, 32000)
"""Where the ranks of a job meet: above the ports of services, below those that Linux gives to connections."""
STEP_STRIDE = 1009
"""Between the ports of two steps of one job, which may run at the same time."""
LOOK_UP_SECONDS = 20.0
LOOPBACK = "127.0.0.1"


def take_ranks_of_srun() -> None:
    """Set torchrun's variables in the environment if this process is one of several tasks of srun.

    Raises:
        UserError: nobody knows the address of the first node.
    """
    if tasks_of_step(os.environ) > 1 and not under_torchrun():
        os.environ.update(ranks_of_srun(os.environ))


def tasks_of_step(environment: Mapping[str, str]) -> int:
    """The number of tasks that srun has started with this one; 0 outside of its tasks.

    The shell of salloc has no number of a task, and a batch script none of a step.
    """
    if "SLURM_PROCID" not in environment or "SLURM_STEP_ID" not in environment:
        return 0
    return first_number(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", ""), otherwise=1)


def ranks_of_srun(environment: Mapping[str, str]) -> dict[str, str]:
    """Torchrun's variables for a task of srun; `MASTER_ADDR` and `MASTER_PORT` are kept where they are set.

    Args:
        environment: of the task.

    Raises:
        UserError: nobody knows the address of the first node.
    """
    tasks = str(tasks_of_step(environment))
    here = _tasks_here(environment) or tasks
    address = environment.get("MASTER_ADDR")
    if not address:
        address = LOOPBACK if here == tasks else _reachable(next(hosts(_of_step(environment, "NODELIST")), ""))
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": here,
        "MASTER_ADDR": address,
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_port(environment)),
    }


def nodes_of_step(environment: Mapping[str, str]) -> list[str]:
    """The names of the nodes of a task's step; none outside of the tasks of srun."""
    return list(hosts(_of_step(environment, "NODELIST"))) if tasks_of_step(environment) else []


def run_name(config_name: str, environment: Mapping[str, str]) -> str | None:
    """The name of the run of a step of srun, the same when its job is requeued; None outside of the tasks of srun.

    Args:
        config_name: of the configuration.
        environment: of a task: `NAME-JOB`, of an array `NAME-ARRAY_TASK`; `.STEP` follows for all but the first step.
    """
    if not tasks_of_step(environment) or "SLURM_JOB_ID" not in environment:
        return None
    job, step = environment["SLURM_JOB_ID"], environment["SLURM_STEP_ID"]
    if "SLURM_ARRAY_TASK_ID" in environment:
        job = f"{environment.get('SLURM_ARRAY_JOB_ID', job)}_{environment['SLURM_ARRAY_TASK_ID']}"
    return f"{config_name}-{job}" + ("" if step == "0" else f".{step}")


def hosts(names: str) -> Iterator[str]:
    """The host names of a list as Slurm writes it: `n[01-03,7],m5` is n01, n02, n03, n7 and m5."""
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", names):
        yield from _expanded(name)


def _expanded(name: str) -> Iterator[str]:
    """One entry of such a list; several brackets are counted through from the last one."""
    before, bracket, rest = name.partition("[")
    if not bracket:
        yield name
        return
    ranges, _, after = rest.partition("]")
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield from (f"{before}{number:0{len(first)}d}{tail}" for tail in _expanded(after))


def _tasks_here(environment: Mapping[str, str]) -> str:
    """The number of tasks on this node, from a list such as `2(x3),1`; empty if it is not known."""
    counts: list[str] = []
    for part in filter(None, _of_step(environment, "TASKS_PER_NODE").split(",")):
        count, _, times = part.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else ""


def _of_step(environment: Mapping[str, str], name: str) -> str:
    """A variable of the step, or that of the job where there is none."""
    return (
        environment.get(f"SLURM_STEP_{name}")
        or environment.get(f"SLURM_JOB_{name}")
        or environment.get(f"SLURM_{name}", "")
    )


def _port(environment: Mapping[str, str]) -> int:
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return PORTS[(job + STEP_STRIDE * step) % len(PORTS)]


def _reachable(host: str) -> str:
    """The name of a node if it resolves, otherwise the address by which Slurm itself reaches it."""
    if resolves(host):
        return host
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["scontrol", "--oneliner", "show", "node", host]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=LOOK_UP_SECONDS, check=True).stdout
        if found := re.search(r"\bNodeAddr=(\S+)", said):
            return found[1]
    raise UserError(
        f"the first node of this step, '{host}', has no address here: its name does not resolve and scontrol does not "
        "know it. Set MASTER_ADDR in the environment of srun to an address of that node"
    )
