"""From the death of a stage to the first step after it: one stage alone, all processes, or the command once more.

    python tests/benchmarks/recovery_time.py [--rounds 3] [--config configs/quickstart.yaml]

Every round kills stage 3 at step 35 of a run with a snapshot every 20 steps, in each of the three ways to come back,
one after the other. Time counts from the mark that the dying process leaves to the first line of `metrics.jsonl` at or
beyond that step, and so includes the steps that are trained again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from common.runs import ROOT, machine, steps, train

WAYS = {"restart=stage": "stage", "restart=job": "job", "the command started again": "none"}
AT = 35
FAULT = f"faults=[{{kind: kill, stage: 3, step: {AT}}}]"


def recovery(config: Path, way: str) -> tuple[float, str]:
    """Seconds, and the digest of the trained weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fixed = ["train.max_steps=60", "evaluation.linear_probe=false", "snapshots.every=20", f"restart={way}", FAULT]
        report = train(run, config, *fixed, check=way != "none")
        if way == "none":
            report = train(run, config, *fixed)
        died = (run / ".faults" / "0").stat().st_mtime
        back = next(line["time"] for line in steps(run) if line["step"] >= AT)
        return back - died, report["final_digest"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    arguments = parser.parse_args()
    print(machine())
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    digests = set()
    for _ in range(arguments.rounds):
        for name, way in WAYS.items():
            seconds, digest = recovery(arguments.config, way)
            found[name].append(seconds)
            digests.add(digest)
    for name, values in found.items():
        print(f"  {name:26} {median(values):6.1f} s  [{min(values):.1f} to {max(values):.1f}]")
    for name in list(WAYS)[1:]:
        ratio = median(a / b for a, b in zip(found[name], found["restart=stage"], strict=True))
        print(f"  {name} / restart=stage: {ratio:.2f}")
    print("  final digests:", "all equal" if len(digests) == 1 else "DIFFERENT")


if __name__ == "__main__":
    main()
