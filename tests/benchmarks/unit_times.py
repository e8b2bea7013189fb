"""How well the times of units and ends add up: stages of several units, timed whole, beside what a plan takes them for.

    python tests/benchmarks/unit_times.py [--config FILE] [--cuts layer1,layer2 --cuts layer3 ...] [--steps 5]
        [--seconds 60] [KEY=VALUE ...]

Every cut of the network (`--cuts` may be given several times, `--cuts every` stands for all single cuts; that of the
configuration if not given) makes stages. Each is built as in a run and timed alone, on the activations of the stage
before. Both are times of the processor where `threads` is 1, so that other processes disturb them little. The error is
that of the prediction. The last line compares the order of the cuts by their slowest stage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from common.runs import ROOT, machine

from launch.partition.costs import Costs, StageCut, seconds_of
from launch.partition.measuring import measured_costs
from pipeline.config import Config
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.measures.rank_correlation import rank_correlation
from pipeline.shapes import view_shapes
from pipeline.stage.stage import Stage
from pipeline.validation.loading import load_config
from workers.run.compute import set_up_compute
from workers.run.environment import ALLOCATOR, process_environment

STEPS_PER_EPOCH = 1000
WARM = 2
"""Steps before those that are timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--cuts", action="append", help="names of units, with commas; an empty one for one stage")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    config = load_config(given.config, given.overrides)
    if not ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], process_environment(config.threads))
    print(machine())
    set_up_compute(config)
    names, every = config.model.units(), list[tuple[str, ...]]()
    for cuts in given.cuts or [",".join(config.model.cuts)]:
        every += [(name,) for name in names[:-1]] if cuts == "every" else [tuple(filter(None, cuts.split(",")))]
    began = time.monotonic()
    costs = measured_costs(config, seconds=given.seconds, stages=range(1, max(map(len, every)) + 2), fresh=True)
    print(f"units and ends measured in {time.monotonic() - began:.1f} s")
    print(f"{'stage':>5}  {'units':32}{'predicted ms':>14}{'measured ms':>14}{'error':>8}")
    slowest = [
        report(config.model_copy(update={"model": config.model.model_copy(update={"cuts": cuts})}), costs, given.steps)
        for cuts in every
    ]
    order = rank_correlation(*zip(*slowest, strict=True)) if len(slowest) > 2 else None
    if order is not None:
        print(f"rank correlation (Spearman) of the slowest stages: {order.spearman:.3f}")


def report(config: Config, costs: Costs, steps: int) -> tuple[float, float]:
    """A line for every stage of one cut; the slowest one's time as predicted, and as measured."""
    first, names, both = 0, config.model.units(), []
    for index, (units, seconds) in enumerate(zip(config.model.blocks(), measured(config, steps), strict=True), 1):
        last = first + len(units) - 1
        predicted = seconds_of(costs, StageCut(stage=index, first=first, last=last)).compute
        title = f"{names[first]} to {names[last]}"
        error = f"{100 * (predicted / seconds - 1):+7.1f}%"
        print(f"{index:5}  {title:32}{1e3 * predicted:14.1f}{1e3 * seconds:14.1f}{error}", flush=True)
        both.append((predicted, seconds))
        first = last + 1
    slowest = [max(times) for times in zip(*both, strict=True)]
    return slowest[0], slowest[1]


def measured(config: Config, steps: int) -> Iterator[float]:
    """Median seconds of a step of each stage, one stage after the other."""
    now = time.thread_time if config.threads == 1 else time.monotonic
    labels = torch.zeros(config.data.batch_size, dtype=torch.int64)
    sizes = [kind.size for kind in view_kinds(config.data, config.num_views)]
    shapes = view_shapes(config, 1, sizes)
    batch = [torch.randint(0, 256, (config.data.batch_size, *shape), dtype=torch.uint8) for shape in shapes]
    for index in range(1, config.num_stages + 1):
        stage, times = Stage(config, index, STEPS_PER_EPOCH), []
        for number in range(WARM + steps):
            began = now()
            onward = stage(batch, number, 1.0)
            stage.update(number, labels if config.uses_labels else None)
            times.append(now() - began)
        yield median(times[WARM:])
        batch = onward.clone()


if __name__ == "__main__":
    main()
