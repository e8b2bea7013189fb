"""A small sweep on the embedded images: how well LiDAR, RankMe, alpha-ReQ and the collapse level tell accuracy.

    python tests/benchmarks/quality_sweep.py [FOLDER] [--epochs 5] [--runs 10] [--override KEY=VALUE ...]

Trains the quickstart network with learning rates, weights of the off-diagonal terms and noise that differ from run to
run, one run after the other, about a minute each on two cores; evaluates every run, and lets `onward select` order
them. Without FOLDER there is a new one in runs/; runs that are in FOLDER are not trained or evaluated again. The tables
say what the LiDAR paper's (arXiv 2312.04000) say for its sweeps: the rank correlation of every measure with the
accuracy of a linear probe.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from common.runs import ROOT, machine, train

QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SWEEP = {
    "as-quickstart": (),
    "lr-0.05": ("optimizer.lr=0.05",),
    "lr-0.5": ("optimizer.lr=0.5",),
    "lr-20": ("optimizer.lr=20",),
    "lr-60": ("optimizer.lr=60",),
    "lambd-0": ("objective.lambd=0",),
    "lambd-0.002": ("objective.lambd=0.002",),
    "lambd-0.2": ("objective.lambd=0.2",),
    "noise-0": ("noise.kind=none",),
    "noise-1": ("noise.std=1.0",),
    "lr-0.5-lambd-0.2": ("optimizer.lr=0.5", "objective.lambd=0.2"),
    "lr-20-noise-1": ("optimizer.lr=20", "noise.std=1.0"),
}
LIMIT = 1800
"""Seconds that one evaluation may take."""


def onward(*arguments: str, quiet: bool = False) -> None:
    """The command line; what it prints is shown unless it is to be quiet."""
    shown = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "launch.cli", *arguments]
    subprocess.run(command, check=not quiet, cwd=ROOT, timeout=LIMIT, stdout=shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new = ROOT / "runs" / f"quality-sweep-{datetime.now():%Y%m%d-%H%M%S}"
    parser.add_argument("folder", type=Path, nargs="?", default=new)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10, help=f"the first so many of {len(SWEEP)}")
    parser.add_argument("--override", action="append", default=[], help="of every run, such as data.batch_size=128")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    print(machine(), f"runs in {folder}", sep="\n", flush=True)
    runs = []
    for name, overrides in list(SWEEP.items())[: arguments.runs]:
        run = folder / name
        started = time.monotonic()
        if not (run / "report.json").is_file():
            common = (f"train.epochs={arguments.epochs}", "evaluation.linear_probe=false", *arguments.override)
            train(run, QUICKSTART, *common, *overrides, check=False)  # some may diverge
        trained = time.monotonic()
        if not (run / "evaluation.json").is_file():
            without = ("evaluation.knn.k=[]", "evaluation.plots=false", "evaluation.cache=false")
            onward("evaluate", str(run), *without, quiet=True)
        if not (run / "evaluation.json").is_file():
            print(f"{name}: left out, it failed", flush=True)
            continue
        seconds = time.monotonic() - trained
        print(f"{name}: trained in {trained - started:.0f} s, evaluated in {seconds:.0f} s", flush=True)
        runs.append(str(run))
    for feature in ("trunk", "projector"):
        onward("select", *runs, "--feature", feature, "--csv", str(folder / f"{feature}.csv"))


if __name__ == "__main__":
    main()
