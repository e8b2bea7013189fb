"""What measuring while training costs: throughput with `evaluation.online` as a share of that without.

    python tests/benchmarks/online_cost.py [--rounds 3] [--steps 40] [--runtime pipelined|serial]

Every round trains the same network for the same steps with nothing, with each measure alone and with all of them, one
after the other, and the ratios are taken within the round. The digests of the trained weights are compared on the way.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from common.runs import ROOT, machine, train

WITHOUT = "without"
QUALITY = "quality_every: {every}, quality_samples: {samples}"
VARIANTS = {
    WITHOUT: "",
    "linear": "linear: true",
    "k-NN": "knn_bank: {bank}",
    "quality": QUALITY,
    "all": "linear: true, knn_bank: {bank}, " + QUALITY,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--bank", type=int, default=4096)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--runtime", choices=["pipelined", "serial"], default="pipelined")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    given = parser.parse_args()
    print(machine())
    print(
        f"{given.runtime}, {given.steps} steps; bank {given.bank}; quality of {given.samples} every {given.every} steps"
    )
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    digests = set()
    for number in range(given.rounds):
        for name, text in VARIANTS.items():
            online = text.format(bank=given.bank, every=given.every, samples=given.samples)
            fixed = [f"train.max_steps={given.steps}", f"runtime={given.runtime}", "evaluation.linear_probe=false"]
            with tempfile.TemporaryDirectory() as folder:
                report = train(Path(folder) / "run", given.config, *fixed, f"evaluation.online={{{online}}}")
            rates[name].append(report["images_per_second"])
            digests.add(report["final_digest"])
            print(f"round {number + 1}  {name:8} {rates[name][-1]:8.1f} images/s", flush=True)
    print(f"the trained weights are {'the same in all' if len(digests) == 1 else 'DIFFERENT'}")
    print("\nthroughput / that without, median of the rounds [range]")
    for name, values in rates.items():
        ratios = [own / base for own, base in zip(values, rates[WITHOUT], strict=True)]
        print(f"  {name:8} {median(ratios):.3f}  [{min(ratios):.3f} to {max(ratios):.3f}]")


if __name__ == "__main__":
    main()
