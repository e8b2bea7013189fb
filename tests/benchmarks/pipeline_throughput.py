"""Images per second: the serial run against the pipeline, as ratios within one call.

    python tests/benchmarks/pipeline_throughput.py [--rounds 3] [--steps 40] [--config configs/quickstart.yaml]

Every round trains the same network for the same steps in every variant, one after the other, so a
machine whose speed drifts drifts for all of them. Throughput runs from the end of the first step to
the end of the last, as in `report.json`; process start is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = {
    "serial, 1 thread": ["runtime=serial", "threads=1"],
    "serial, 2 threads": ["runtime=serial", "threads=2"],
    "pipelined, 4 stages": ["runtime=pipelined"],
    "pipelined, 2 stages": ["runtime=pipelined", "model.cuts=[layer1]"],
    "serial, 2 stages": ["runtime=serial", "model.cuts=[layer1]"],
}
RATIOS = [
    ("pipelined, 4 stages", "serial, 1 thread"),
    ("pipelined, 4 stages", "serial, 2 threads"),
    ("pipelined, 2 stages", "serial, 2 stages"),
]


def measure(config: Path, steps: int, overrides: list[str]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fixed = [f"run_dir={run}", f"train.max_steps={steps}", "evaluation.linear_probe=false"]
        command = [sys.executable, "-m", "launch.cli", "train", str(config), *fixed, *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1200, cwd=ROOT)
        return json.loads((run / "report.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    arguments = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{date.today()}  {machine}, {os.cpu_count()} cores, torch {torch.__version__}")
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    busiest: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(arguments.rounds):
        for name, overrides in VARIANTS.items():
            report = measure(arguments.config, arguments.steps, overrides)
            rates[name].append(report["images_per_second"])
            busiest[name].append(max(stage["busy"] for stage in report["stages"]))
            print(f"round {number + 1}  {name:20} {rates[name][-1]:8.1f} images/s", flush=True)
    print("\nmedian of the rounds")
    for name, values in rates.items():
        share = f"  slowest stage computing {100 * median(busiest[name]):.1f} %" if name.startswith("pipelined") else ""
        print(f"  {name:20} {median(values):8.1f} images/s  [{min(values):.1f} to {max(values):.1f}]{share}")
    for one, other in RATIOS:
        ratio = median(a / b for a, b in zip(rates[one], rates[other], strict=True))
        print(f"  {one} / {other}: {ratio:.2f}")


if __name__ == "__main__":
    main()
