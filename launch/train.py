"""Starts a rank: `torchrun --nproc-per-node=PROCESSES -m launch.train CONFIG [key=value ...]`."""

from __future__ import annotations

from workers.run.environment import start_anew_with_allocator

if __name__ == "__main__":
    start_anew_with_allocator("launch.train")

    from launch.processes.torchrun import rank

    rank()
