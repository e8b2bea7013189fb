"""What `digests.every` costs: the time of a step of all stages with digests of every step, and of every tenth, to one
without.

    python tests/benchmarks/digests_cost.py [--config FILE] [--rounds 7] [--device cuda] [key=value ...]

One process has the stages three times, trains them on random images in turn, in an order that changes, ten steps at a
time, and takes the ratios within the round. On a CPU the time is that of the processor, which others on the machine
disturb less; on a GPU it is the clock's, from one synchronisation to the next.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common.runs import ROOT
from common.turns import computes_on, in_turn, lines_of, now

from pipeline.config import Config
from pipeline.serial import build_stages, step_function
from pipeline.validation.loading import load_config
from workers.determinism.step import Trial, random_batch
from workers.run.compute import set_up_compute

EVERY = (0, 1, 10)
STEPS = 10
"""In a turn, of which one is recorded with `digests.every=10`."""


class Run:
    """All stages of a run in this process.

    Args:
        config: of the run.
        device: they compute on.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.device, self.step, self.count = device, 0, config.num_stages
        self.stages = build_stages(config, 1000, device)
        self.one_step = step_function(config, self.stages, device)
        self.batch = torch.stack(random_batch(config, 1, Trial(1, config.data.batch_size, 0), device))
        self.labels = (torch.arange(config.data.batch_size) % 2).to(device) if config.uses_labels else None

    def turn(self) -> float:
        """Seconds of `STEPS` steps."""
        before = now(self.device)
        for step in range(self.step, self.step + STEPS):
            list(self.one_step(self.stages, self.batch, step, [0.0] * self.count, labels=self.labels))
        self.step += STEPS
        return now(self.device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    device = torch.device(given.device)
    configs = {n: load_config(given.config, [*given.overrides, f"digests.every={n}"]) for n in EVERY}
    set_up_compute(configs[0])
    runs = {n: Run(config, device) for n, config in configs.items()}
    print(computes_on(device))
    print(f"{given.config.name} {' '.join(given.overrides)}, {given.rounds} rounds of {STEPS} steps each")
    seconds = in_turn(EVERY, given.rounds, lambda n: runs[n].turn() / STEPS)
    print("\n".join(lines_of(seconds, 0, lambda n: f"digests.every={n:<3}", "that without")))


if __name__ == "__main__":
    main()
