"""What `determinism.level` costs: the time of a stage's step with each level as a share of that with `off`.

    python tests/benchmarks/determinism_cost.py [--config FILE] [--stage K] [--rounds 5] [--device cuda] [key=value ...]

One process computes steps on random input with each level in turn, in an order that changes, and the ratios are taken
within the round. On a CPU the time is that of the processor, which others on the machine disturb less; on a GPU it is
the clock's, from one synchronisation to the next. (There all levels share cuBLAS's workspace, which a process has for
good.)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from common.runs import ROOT, machine

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
    print(machine() if device.type == "cpu" else torch.cuda.get_device_name(device))
    print(f"stage {given.stage} of {given.config.name}, {given.rounds} rounds of {given.steps} steps with each level")
    seconds: dict[str, list[float]] = {level: [] for level in LEVELS}
    for number in range(-1, given.rounds):  # the first is not counted: libraries load, and choose
        shift = number % len(LEVELS)
        for level in LEVELS[shift:] + LEVELS[:shift]:
            took = seconds_of_a_step(configs[level], given.stage, given.steps, device)
            if number >= 0:
                seconds[level].append(took)
    for level, values in seconds.items():
        ratios = [own / base for own, base in zip(values, seconds["off"], strict=True)]
        print(
            f"{level:6}  {1000 * median(values):9.2f} ms  {median(ratios):.3f} times `off` "
            f"[{min(ratios):.3f}, {max(ratios):.3f}]"
        )


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


def now(device: torch.device) -> float:
    """Seconds."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
