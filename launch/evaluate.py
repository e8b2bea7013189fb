"""Evaluates in several processes: `torchrun --nproc-per-node=PROCESSES -m launch.evaluate RUN`."""

from __future__ import annotations

import sys

from launch.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
