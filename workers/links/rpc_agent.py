"""Starts and stops the RPC agent of this process, both within a time limit.

`torch.distributed.rpc` may wait for a peer without limit, at the start as well as at shutdown, and an agent cannot be
repaired after a peer died. Both calls therefore run in a daemon thread. The agent trusts every process that can reach
it over the network, and unpickles what those send: use it on private networks only.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial

from torch.distributed import rpc

from pipeline.errors import TrainingError, reason_of
from workers.links.base import LinkTimeout, seconds, worker_name

HANDLER_THREADS = 4
"""Threads that run handlers. Handlers do not block, so a few are enough."""
NOT_HERE = "not in use by this listener"
"""What TensorPipe says if it can use none of the transports that it was given."""
_log = logging.getLogger(__name__)


def start_agent(
    name: str,
    rank: int,
    world_size: int,
    init_method: str,
    timeout: float,
    transports: Sequence[str] = ("ibv", "uv"),
) -> None:
    """Join the RPC group of the run; returns once all `world_size` processes have joined.

    Args:
        name: of this process (`stage 2`); it joins as `worker_name(name)`.
        rank: in the group, from 0.
        world_size: number of processes in the group.
        init_method: `tcp://HOST:PORT`, `file://PATH` or `env://`.
        timeout: seconds.
        transports: `link.rpc_transports`; the same in every process.

    Raises:
        LinkTimeout: the group was not complete in time.
        TrainingError: the group could not be joined.
    """
    options = _options(init_method, timeout, transports)

    join_group: Callable[..., None] = rpc.init_rpc  # untyped in the library

    # PyTorch warns of a deprecation in its own start-up.
    warnings.filterwarnings("ignore", message="You are using a Backend", category=UserWarning)

    def join() -> None:
        join_group(worker_name(name), rank=rank, world_size=world_size, rpc_backend_options=options)

    problem = f"{name} could not join the RPC group of {world_size} processes at {init_method}"
    finished, error = _run_limited(join, timeout)
    if not finished or "timeout" in str(error).lower() or "timed out" in str(error).lower():
        raise LinkTimeout(f"{problem} within {seconds(timeout)}: not all of them have started") from None
    if error is not None and NOT_HERE in str(error):
        raise TrainingError(
            f"{problem}: none of link.rpc_transports=[{', '.join(transports)}] can be used on this host. Add uv, which "
            "can be used everywhere"
        ) from None
    if error is not None:
        raise TrainingError(f"{problem}: {reason_of(error)}") from None


def stop_agent(graceful: bool, timeout: float) -> bool:
    """Stop the agent of this process, if it has one.

    Args:
        graceful: wait until every process of the group stops, too. Must be False after a failure, because dead
            peers never stop.
        timeout: seconds.

    Returns:
        Whether the agent has stopped. If not, end the process by `os._exit`: a running agent may block the shutdown
        of the interpreter.
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


def _options(init_method: str, timeout: float, transports: Sequence[str]) -> rpc.TensorPipeRpcBackendOptions:
    make = partial(
        rpc.TensorPipeRpcBackendOptions,
        init_method=init_method,
        rpc_timeout=timeout,
        num_worker_threads=HANDLER_THREADS,
    )
    try:
        # TensorPipe's own first choice on one host is `shm`, whose thread polls without a pause.
        return make(_transports=list(transports))
    except TypeError:  # the parameter is private to PyTorch, and this version has none
        _log.warning("this version of PyTorch chooses the transports itself: link.rpc_transports has no effect")
        return make()


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
