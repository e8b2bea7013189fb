"""Every way to cut ResNet-18 and ResNet-50 into two blocks, as `onward plan --measure` predicts it and as it runs.

    python tests/benchmarks/plan_cuts.py [--networks NAME ...] [--turns 3] [--steps 14] [--to FILE] [KEY=VALUE ...]

Two devices of one core each, images of 96 pixels. Each turn measures the costs, as the command does, and trains every
cut for some steps, in an order that changes, of which it takes the images a second of the last half. The table has the
medians of the turns. What was measured is kept in FILE, so that a benchmark that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common.runs import ROOT, machine, steps, train

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut
from launch.partition.measuring import measured_costs
from launch.partition.objective import value_of
from launch.partition.search import search
from pipeline.validation.loading import load_config
from workers.run.environment import process_environment
from workers.run.files import write_json

SETTINGS = (
    "model.width=64", "model.stem=imagenet", "data.image_size=96", "data.batch_size=16", "data.drop_last=true",
    "head.width=256", "evaluation.linear_probe=false", "alarms.enabled=false", "device=cpu", "threads=1",
)  # fmt: skip


def rate_of(network: str, unit: str, count: int, overrides: list[str]) -> float:
    """Images a second of a run that is cut after `unit`, over the last half of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        cut = [f"model.backbone={network}", f"model.cuts=[{unit}]", f"train.max_steps={count}"]
        train(run, ROOT / "configs" / "quickstart.yaml", *SETTINGS, *cut, *overrides)
        lines = steps(run)
    half = lines[len(lines) // 2 :]
    return sum(line["images"] for line in half[1:]) / (half[-1]["time"] - half[0]["time"])


def predicted(network: str, overrides: list[str]) -> tuple[dict[str, float], str]:
    """Images a second of every cut, and the cut of the plan; with the allocator that the processes of a run have."""
    command = [sys.executable, __file__, "--networks", network, "--predict", *overrides]
    environment = process_environment(threads=1)
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600, env=environment).stdout
    rates, plan = json.loads(answer)
    return rates, plan


def predict(network: str, overrides: list[str]) -> tuple[dict[str, float], str]:
    """The same in this process."""
    given = [*SETTINGS, f"model.backbone={network}", "model.cuts=[layer2]", *overrides]
    config = load_config(ROOT / "configs" / "quickstart.yaml", given)
    costs = measured_costs(config, fresh=True)
    constraints = Constraints.of(config, devices=2)
    rates = {
        costs.units[last].unit: costs.batch / value_of(costs, constraints, _stages(costs, last), None)
        for last in range(len(costs.units) - 1)
    }
    plan = search(costs, constraints, lambda cut: cut)[2]
    return rates, costs.units[plan.stages[0].last].unit


def _stages(costs: Costs, last: int) -> tuple[StageCut, ...]:
    return StageCut(stage=1, first=0, last=last), StageCut(stage=2, first=last + 1, last=len(costs.units) - 1)


def spearman(one: list[float], other: list[float]) -> float:
    """Correlation of the ranks of two lists without ties."""
    ranks, others = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(ranks, others)[0, 1])


def report(network: str, found: dict[str, Any]) -> None:
    """Print the table of one network."""
    rates, measured = ({unit: median(turns) for unit, turns in found[key].items()} for key in ("predicted", "measured"))
    plan, best = (max(values, key=lambda unit: values[unit]) for values in (rates, measured))
    print(f"\n{network}: the plan cuts after {plan} (by turn: {', '.join(found['plans'])}), the best that was measured "
          f"is {best}: {measured[plan] / measured[best]:.3f} of it; rank correlation (Spearman) "
          f"{spearman(list(rates.values()), list(measured.values())):.3f}")  # fmt: skip
    print(f"{'cut after':<12}{'predicted':>10}{'measured':>10}{'ratio':>8}   turns")
    for unit, rate in rates.items():
        turns = " ".join(f"{value:.2f}" for value in found["measured"][unit])
        print(f"{unit:<12}{rate:>10.2f}{measured[unit]:>10.2f}{rate / measured[unit]:>8.3f}   {turns}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--predict", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    if given.predict:
        print(json.dumps(predict(given.networks[0], given.overrides)))
        return
    results: dict[str, Any] = json.loads(given.to.read_text()) if given.to and given.to.exists() else {}
    print(machine())

    def keep() -> None:
        if given.to:
            write_json(given.to, results)

    for turn in range(given.turns):
        for network in given.networks:
            found = results.setdefault(network, {"plans": [], "predicted": {}, "measured": {}})
            if len(found["plans"]) <= turn:
                rates, plan = predicted(network, given.overrides)
                found["plans"].append(plan)
                for unit, rate in rates.items():
                    found["predicted"].setdefault(unit, []).append(rate)
                    found["measured"].setdefault(unit, [])
                keep()
            units = list(found["measured"])
            shift = turn * len(units) // given.turns
            for unit in units[shift:] + units[:shift]:
                if len(found["measured"][unit]) <= turn:
                    found["measured"][unit].append(rate_of(network, unit, given.steps, given.overrides))
                    keep()
    for network in given.networks:
        report(network, results[network])


if __name__ == "__main__":
    main()
