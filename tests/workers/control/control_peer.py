"""A client of a control channel in a process of its own: it is told where to connect, and then says nothing."""

from __future__ import annotations

import json
import sys
import time

from tests.waiting import LIMIT
from tests.workers.control.control_ends import KEY
from workers.control.channel import ControlClient

if __name__ == "__main__":
    where = json.loads(sys.stdin.readline())
    client = ControlClient.connect(where if isinstance(where, str) else tuple(where), KEY, "stage 1", LIMIT)
    time.sleep(5 * LIMIT)
