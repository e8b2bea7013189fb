"""How long the search for the best plan takes for large networks on 64 GPUs, in seconds of one core.

    python tests/benchmarks/plan_search.py [--devices 64] [--per-host 8] [--seeds 3]

Costs are drawn from a seed, as in the test that compares the search with trying all plans: as many units as ResNet-152
and ViT-L/16 have, every one of them unlike the others, links slow and fast. Every process fits its device, so that no
account of memory is made, which takes a second or two for each process that a plan is to have.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import product

from common.runs import ROOT, machine

sys.path.insert(0, str(ROOT))

from launch.partition.constraints import Constraints
from launch.partition.search import search
from tests.launch.partition.random_costs import random_costs

NETWORKS = {"resnet152": 51, "vit_l_16": 25}
"""How many units they have."""
BATCHES = (1024, 1440)
"""Images that up to 64 replicas can share in 7 ways, and in 23."""
STAGES = ((4,), tuple(range(1, 17)))


def seconds_of_search(units: int, stages: tuple[int, ...], batch: int, seed: int, given: argparse.Namespace) -> float:
    costs = random_costs(random.Random(seed), units, max(stages), batch=batch)
    replicas = tuple(count for count in range(1, given.devices + 2) if batch % count == 0 and batch // count >= 2)
    constraints = Constraints(
        devices=given.devices, per_host=given.per_host, stages=stages, cuts=None, replicas=replicas, processes=True
    )
    begun = time.process_time()
    search(costs, constraints, lambda cuts: cuts, numbers=(given.devices, given.devices + 1))
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--per-host", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print(machine())
    print("| network | stages | batch | seconds, each seed |\n|---|---|---|---|")
    for (name, units), stages, batch in product(NETWORKS.items(), STAGES, BATCHES):
        taken = [seconds_of_search(units, stages, batch, seed, given) for seed in range(given.seeds)]
        counted = str(stages[0]) if len(stages) == 1 else f"{stages[0]} to {stages[-1]}"
        print(f"| {name} | {counted} | {batch} | {', '.join(f'{each:.1f}' for each in taken)} |", flush=True)


if __name__ == "__main__":
    main()
