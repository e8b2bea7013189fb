"""torchrun's agent on a host that is cut off: it waits for an answer of its store on the first host.

It waits in a call that only the kernel ends, after a quarter of an hour, and does not notice that its ranks have ended.
A rank that has found its host cut off ends it, unless the agent may start the ranks again: by SIGTERM, which it obeys
at once where another of its threads is in that call, and else by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from workers.links.wire import CUT_OFF
from workers.run.environment import first_number

AGENTS = ("torchrun", "torch.distributed.run", "torch.distributed.launch")

OBEY_SECONDS = 5.0
"""How long an agent that obeys SIGTERM takes at most; it ends its ranks first, and this is one."""


def end_waiting_agent(cause: str) -> bool:
    """Ask the agent of this rank to end, if `cause` says that the host is cut off; returns whether it was asked."""
    restarts = first_number(os.environ.get("TORCHELASTIC_MAX_RESTARTS", ""), otherwise=0)
    if CUT_OFF not in cause or "TORCHELASTIC_RUN_ID" not in os.environ or restarts:
        return False
    parent = os.getppid()
    with suppress(OSError):
        words = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if any(Path(word).name in AGENTS for word in words):  # and not a program that has started the ranks itself
            os.kill(parent, signal.SIGTERM)
            deadline = time.monotonic() + OBEY_SECONDS
            while os.getppid() == parent and time.monotonic() < deadline:
                time.sleep(0.1)
            if os.getppid() == parent:
                os.kill(parent, signal.SIGKILL)
            return True
    return False
