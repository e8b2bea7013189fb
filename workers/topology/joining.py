"""How a rank of torchrun, srun or `onward train --hosts` finds the store of all ranks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from pipeline.errors import TrainingError, UserError, first_line, reason_of
from workers.run.environment import BY_HOSTS, launcher
from workers.run.notice import notice_after
from workers.topology.network import wait_for_port
from workers.topology.torchrun import RanksApart, RunGroup, Store

SILENT_SECONDS = 10.0
"""How long the host of torchrun's store may not answer, or its name not resolve."""
REFUSED_SECONDS = 15.0
"""How long nobody may listen there, if torchrun itself serves the store and so has started before its ranks."""
KNOWS_HOSTS = (BY_HOSTS, "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID")
"""Set by launchers that start ranks on hosts that are there. Pods get their names when there is room for them."""


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_group(
    timeout: float, say: Callable[[str], None] = lambda sentence: None, wait_for_all: bool = True
) -> RunGroup:
    """Connect to the store of torchrun.

    Args:
        timeout: seconds.
        say: tells the user what is waited for.
        wait_for_all: of rank 0 where it serves the store for several hosts: whether it waits until all others have
            connected; torch does not say who is missing.

    Raises:
        RanksApart: the host of the store is not known here, or does not answer.
        UserError: under srun: a rank does not come.
        TrainingError: the store cannot be reached within `timeout` seconds.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, local_world = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    several = world_size != local_world
    refused = REFUSED_SECONDS if by_torchrun else timeout
    silent = SILENT_SECONDS if any(name in os.environ for name in KNOWS_HOSTS) else timeout
    own = _await_store(refused, silent, say) if several and (rank or by_torchrun) else ""
    try:
        if rank == 0 and several and not by_torchrun and not wait_for_all:
            store = _own_store(world_size, timeout)
        else:
            store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (RuntimeError, ValueError) as error:
        if launcher() != "srun":
            raise TrainingError(f"torchrun's store cannot be reached ({first_line(error)[:300]})") from error
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"the ranks do not meet at {at} ({reason_of(error)}). See whether one has failed to start; "
            "MASTER_ADDR and MASTER_PORT in the environment of srun name another place"
        ) from error
    if several and not own:  # this rank serves the store
        own = _await_store(timeout, silent, say)
    return RunGroup(rank, world_size, local, local_world, store, own_address=own)


def _own_store(world_size: int, timeout: float) -> Store:
    """The store that rank 0 serves, without waiting for the others."""
    where, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=timeout)
    return TCPStore(  # the RPC group opens another at this address
        where, port, world_size, is_master=True, timeout=limit, wait_for_workers=False, multi_tenant=True
    )


def _await_store(refused: float, silent: float, say: Callable[[str], None]) -> str:
    """The own address of a connection to the store; raises `RanksApart`."""
    host, port, here = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), socket.gethostname()
    first = f"the first host, which {launcher()} calls '{host}'"
    try:
        with notice_after(lambda: say(f"{here} waits for {first}, port {port}")):
            return wait_for_port(host, port, refused, silent)
    except socket.gaierror as error:
        raise RanksApart(
            f"{first}: the name does not resolve on {here} ({error.strerror}). Add it to /etc/hosts on every host, or "
            f"{_another_address()}"
        ) from None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise RanksApart(
            f"{here} does not reach {first}, at port {port} ({why}). Open the ports between the hosts, or "
            f"{_another_address()}"
        ) from None


def _another_address() -> str:
    """How the user names the first host in another way."""
    if launcher() == "srun":
        return "set MASTER_ADDR, in the environment of srun, to an address of the first host that every host reaches"
    return (
        "give torchrun an address of the first host that every host reaches: --local-addr=ADDRESS there, or "
        "--master-addr=ADDRESS on every host"
    )
