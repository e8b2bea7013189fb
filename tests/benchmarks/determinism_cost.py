"""What `determinism.level` costs: the time of a stage's step with each level as a share of that with `off`.

    python tests/benchmarks/determinism_cost.py [--config FILE] [--stage K] [--rounds 5] [--device cuda] [key=value ...]

One process computes steps on random input with each level in turn, in an order that changes, and the ratios are taken
within the round. On a CPU the time is that of the processor, which others on the machine disturb less; on a GPU it is
the clock's, from one synchronisation to the next. (There all levels share cuBLAS's workspace, which a process has for
good.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common.runs import ROOT
from common.turns import computes_on, in_turn, lines_of, now

from pipeline.config import Config
from pipeline.stage.stage import Stage
from pipeline.validation.loading import load_config
from workers.determinism.step import Trial, random_batch
from workers.run.compute import set_up_compute

LEVELS = ("off", "warn", "strict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--stage", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    device = torch.device(given.device)
    configs = {level: load_config(given.config, [*given.overrides, f"determinism.level={level}"]) for level in LEVELS}
    print(computes_on(device))
    print(f"stage {given.stage} of {given.config.name}, {given.rounds} rounds of {given.steps} steps with each level")
    seconds = in_turn(
        LEVELS, given.rounds, lambda level: seconds_of_a_step(configs[level], given.stage, given.steps, device)
    )
    print("\n".join(lines_of(seconds, "off", lambda level: f"{level:6} ", "`off`")))


def seconds_of_a_step(config: Config, index: int, steps: int, device: torch.device) -> float:
    """Of one of so many steps."""
    set_up_compute(config)
    stage = Stage(config, index, 1000, device)
    batch = random_batch(config, index, Trial(index, config.data.batch_size, 0), device)
    labels = (torch.arange(config.data.batch_size) % 2).to(device) if config.uses_labels else None
    for step in range(2 + steps):
        if step == 2:
            before = now(device)
        stage(batch, step, 0.0)
        stage.update(step, labels)
    return (now(device) - before) / steps


if __name__ == "__main__":
    main()
