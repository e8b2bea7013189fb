"""What a snapshot costs the run that takes it: throughput around snapshots against the rest, within one run.

    python tests/benchmarks/snapshot_dip.py [--every 20] [--steps 200] [--config configs/quickstart.yaml]

A snapshot is copied after its step and written while the next steps are trained. Steps are timed by the lines of
`metrics.jsonl`; the first `after` steps that follow a snapshot's step, itself included, are compared with the others.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from common.runs import ROOT, machine, steps, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--after", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fixed = [f"train.max_steps={arguments.steps}", "evaluation.linear_probe=false"]
        train(run, arguments.config, *fixed, f"snapshots.every={arguments.every}")
        lines = steps(run)
        size = sum(
            file.stat().st_size
            for file in (run / "snapshots" / f"step_{arguments.steps // arguments.every * arguments.every}").iterdir()
        )
    times = [later["time"] - earlier["time"] for earlier, later in pairwise(lines)]
    # The entry of `times` for step s is at s - 1; a snapshot follows the steps s with (s + 1) % every == 0.
    near = [t for s, t in enumerate(times, 1) if (s + 1) % arguments.every < arguments.after and s > arguments.after]
    far = [t for s, t in enumerate(times, 1) if (s + 1) % arguments.every >= arguments.after and s > arguments.after]
    print(f"a snapshot of {size / 1e6:.1f} MB every {arguments.every} steps, {arguments.steps} steps")
    for name, values in ((f"snapshot and {arguments.after - 1} steps after", near), ("all other steps", far)):
        print(f"  {name:26} median {1e3 * median(values):6.1f} ms, mean {1e3 * mean(values):6.1f} ms a step")
    print(f"  throughput around snapshots / elsewhere: {mean(far) / mean(near):.3f}, of medians", end=" ")
    print(f"{median(far) / median(near):.3f}")
    print(f"  throughput of the whole run / without snapshots: {mean(far) / mean(near + far):.3f}")


if __name__ == "__main__":
    main()
