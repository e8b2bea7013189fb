"""Starts a rank: `torchrun --nproc-per-node=PROCESSES -m launch.train CONFIG [key=value ...]`."""

from __future__ import annotations

from launch.processes.torchrun import rank

if __name__ == "__main__":
    rank()
