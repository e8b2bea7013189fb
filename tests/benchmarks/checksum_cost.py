"""What `link.checksum` costs: the checksum of a message beside a copy of it, and those of all messages of a step, at
both ends of every link, beside the step.

    python tests/benchmarks/checksum_cost.py [--config FILE] [--rounds 7] [--megabytes 1 12] [key=value ...]

One process does all of it in turn on random tensors, and takes the ratios within the round. The time is that of the
processor, which others on the machine disturb less.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from common.runs import ROOT, machine
from determinism_cost import now
from digests_cost import STEPS, Run

from pipeline.validation.loading import load_config
from workers.links.checked import Checksums
from workers.links.messages import Header, TensorSpec
from workers.run.compute import set_up_compute
from workers.topology.rendezvous import link_spec

CPU = torch.device("cpu")
TIMES = 10
HEADER = Header(0, 0, (0.0,) * 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=float, nargs="+", default=(1.0, 12.0))
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    config = load_config(given.config, given.overrides)
    set_up_compute(config)
    checksums = Checksums()
    print(machine())
    for mb in given.megabytes:
        tensor = torch.randn(int(mb * 250_000))
        target = torch.empty_like(tensor)
        checked, copied = partial(checksums.of, HEADER, tensor), partial(target.copy_, tensor)
        rows = [(seconds(checked), seconds(copied)) for _ in range(given.rounds + 1)][1:]
        took, ratio = median(own for own, _ in rows), median(own / copy for own, copy in rows)
        print(f"{mb:g} MB: {1000 * took:.2f} ms, {mb / took / 1000:.1f} GB/s, {ratio:.1f} times a copy")
    specs = [link_spec(config, stage) for stage in range(1, config.num_stages + 1)]
    messages = [random_message(spec) for spec in specs]
    run, shares = Run(config, CPU), []
    for _ in range(given.rounds + 1):
        step = run.turn() / STEPS
        shares.append(2 * seconds(lambda: [checksums.of(HEADER, message) for message in messages]) / step)
    sizes = ", ".join(f"{spec.nbytes / 1e6:.1f}" for spec in specs)
    print(f"{given.config.name} {' '.join(given.overrides)}: messages of {sizes} MB")
    print(f"all checksums of a step: {100 * median(shares[1:]):.2f} % of it [{100 * min(shares[1:]):.2f}, "
          f"{100 * max(shares[1:]):.2f}], {given.rounds} rounds of {STEPS} steps")  # fmt: skip


def random_message(spec: TensorSpec) -> torch.Tensor:
    """A tensor of the size of the largest message."""
    return torch.randint(0, 256, (spec.nbytes,), dtype=torch.uint8).view(spec.dtype).view(spec.shape)


def seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    before = now(CPU)
    for _ in range(TIMES):
        action()
    return (now(CPU) - before) / TIMES


if __name__ == "__main__":
    main()
