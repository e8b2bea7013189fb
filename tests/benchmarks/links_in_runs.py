"""Images per second, and seconds from the last step to the end, of runs that differ only in their links.

    python tests/benchmarks/links_in_runs.py [--rounds 3] [--steps 40] [--config FILE] [key=value ...]

Every round trains the same network for the same steps over every link, one after the other, so a machine whose speed
drifts drifts for all of them. Throughput runs from the end of the first step to the end of the last; the end is when
the command returns, without probes. All runs must end with the same weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from common.runs import ROOT, machine, train

LINKS = {
    "queue": ["link.kind=queue"],
    "p2p": ["link.kind=p2p"],
    "rpc": ["link.kind=rpc"],
    "rpc, shm": ["link.kind=rpc", "link.rpc_transports=[shm,uv]"],
}


def measure(config: Path, overrides: list[str]) -> tuple[float, float, object]:
    """Images per second, seconds from the last step to the end, and the digests of the weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        report = train(run, config, "evaluation.linear_probe=false", *overrides)
        ending = time.time() - (run / "metrics.jsonl").stat().st_mtime
        return report["images_per_second"], ending, report["final_digest"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value")
    options = parser.parse_args()
    print(machine())
    found: dict[str, list[tuple[float, float, object]]] = {name: [] for name in LINKS}
    for number in range(options.rounds):
        for name, overrides in LINKS.items():
            row = measure(options.config, [f"train.max_steps={options.steps}", *overrides, *options.overrides])
            found[name].append(row)
            print(f"round {number + 1}  {name:10} {row[0]:8.1f} images/s, {row[1]:.1f} s to the end", flush=True)
    print(f"\n{'median':10} {'images/s':>10} {'of queue':>10} {'s to the end':>14}")
    for name, rows in found.items():
        ratio = median(mine[0] / queue[0] for mine, queue in zip(rows, found["queue"], strict=True))
        print(f"{name:10} {median(row[0] for row in rows):10.1f} {ratio:10.2f} {median(row[1] for row in rows):14.1f}")
    same = all(row[2] == rows[0][2] for rows in found.values() for row in rows)
    print("the weights are equal in all runs" if same else "the weights DIFFER")


if __name__ == "__main__":
    main()
