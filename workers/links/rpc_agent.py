"""Starting and stopping this process's RPC agent, both within a time limit.

`torch.distributed.rpc` can wait for a peer for very long, in the constructor as well as at shutdown, and
a process cannot heal its agent after a peer died. Both calls therefore run in a daemon thread.
The agent trusts every process that can reach it over the network, and unpickles what those send:
use it on networks of your own only.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable

from torch.distributed import rpc

from pipeline.errors import TrainingError, reason_of
from workers.links.base import LinkTimeout, seconds, worker_name

HANDLER_THREADS = 4
"""Threads that run handlers; every handler returns at once, so a few are enough."""
_log = logging.getLogger(__name__)


def start_agent(name: str, rank: int, world_size: int, init_method: str, timeout: float) -> None:
    """Join the RPC group of the run; returns once all `world_size` processes have joined.

    Args:
        name: this process in words (`stage 2`); it joins as `worker_name(name)`.
        rank: its number in the group, from 0.
        world_size: processes of the group.
        init_method: `tcp://HOST:PORT`, `file://PATH` or `env://`.
        timeout: seconds.

    Raises:
        LinkTimeout: the group was not complete in time.
        TrainingError: the group could not be joined.
    """
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=init_method, rpc_timeout=timeout, num_worker_threads=HANDLER_THREADS
    )

    join_group: Callable[..., None] = rpc.init_rpc  # untyped in the library

    # The library's own start-up trips over a deprecation of its own.
    warnings.filterwarnings("ignore", message="You are using a Backend", category=UserWarning)

    def join() -> None:
        join_group(worker_name(name), rank=rank, world_size=world_size, rpc_backend_options=options)

    what = f"{name} could not join the RPC group of {world_size} processes at {init_method}"
    finished, error = _run_limited(join, timeout)
    if not finished or "timeout" in str(error).lower() or "timed out" in str(error).lower():
        raise LinkTimeout(f"{what} within {seconds(timeout)}: not all of them have started") from None
    if error is not None:
        raise TrainingError(f"{what}: {reason_of(error)}") from None


def stop_agent(graceful: bool, timeout: float) -> bool:
    """Stop the agent of this process, if it has one.

    Args:
        graceful: wait until every process of the group stops too. After a failure give False: peers that
            died never get there.
        timeout: seconds.

    Returns:
        Whether the agent has stopped in order. If not, leave the process with `os._exit`: an agent that is
        still running may block the interpreter's own shutdown.
    """
    try:
        rpc.get_worker_info()
    except RuntimeError:  # no agent
        return True
    finished, error = _run_limited(lambda: rpc.shutdown(graceful=graceful, timeout=max(timeout, 1.0)), timeout)
    if graceful and not (finished and error is None):
        _log.warning(
            "the RPC agent did not stop within %s: a call is still open, or a process is gone", seconds(timeout)
        )
    return finished and error is None


def _run_limited(action: Callable[[], None], limit: float) -> tuple[bool, Exception | None]:
    """Run `action` in a daemon thread; whether it ended in time, and what it raised."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="rpc-agent", daemon=True)
    thread.start()
    thread.join(limit)
    return not thread.is_alive(), errors[0] if errors else None
