"""Does training block by block cost robustness against training end to end? Errors on corrupted images, by block.

    python tests/benchmarks/robustness.py
    python tests/benchmarks/robustness.py --epochs 15 --seeds 3

Trains `configs/quickstart.yaml` and `configs/end_to_end.yaml` with the same seeds and epochs, and evaluates both on the
corrupted test images. `mCE` and `relative mCE` are the block's errors, and what corruptions add to its clean error,
divided by those of the same block trained end to end with the same seed: above 1, block by block is less robust. Both
by seed, as a mean with its range: a ratio whose range holds 1 says nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from common.runs import ROOT, machine, train

from pipeline.evaluation.document import EvaluationResults

CONFIGS = {"end to end": "end_to_end.yaml", "blockwise": "quickstart.yaml"}
ALONE = (
    "evaluation.linear=[]", "evaluation.knn.k=[]", "evaluation.quality.enabled=false", "evaluation.plots=false",
    "evaluation.places=[trunk]",
)  # fmt: skip
Found = Mapping[tuple[int, str, str], float]
"""Value by block, measure and metric."""


def measured(run: Path, config: str, seed: int, arguments: argparse.Namespace, baseline: Path | None) -> Found:
    """Train, evaluate, and read what was found."""
    given = [f"train.epochs={arguments.epochs}", f"seed={seed}", "runtime=serial", "metrics.enabled=false"]
    train(run, ROOT / "configs" / config, *given, "evaluation.linear_probe=false", *arguments.override)
    wanted = [
        *ALONE,
        f"evaluation.corruptions.names={arguments.corruptions}",
        f"evaluation.corruptions.severities={arguments.severities}",
    ]
    if baseline is not None:
        wanted.append(f"evaluation.corruptions.baseline={baseline}")
    command = [sys.executable, "-m", "launch.cli", "evaluate", str(run), *wanted]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=7200, cwd=ROOT)
    results = EvaluationResults.read(run / "evaluation.json").results
    return {(record.block, record.measure, record.metric): record.value for record in results}


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{mean(values):6.3f} [{min(values):.3f}-{max(values):.3f}]"


def table(found: Mapping[str, list[Found]]) -> None:
    """Print errors and ratios of every block, and the ratio of every corruption at the last block."""
    blocks = sorted({block for block, _, _ in found["blockwise"][0]})
    print(f"{'block':6}{'training':12}{'clean error':24}{'corrupted error':24}{'mCE':24}{'relative mCE':24}")
    columns = (("clean", "error"), ("mean", "error"), ("mean", "mce"), ("mean", "relative_mce"))
    for block in blocks:
        for name, runs in found.items():
            keys = [(block, f"corruption/{measure}", metric) for measure, metric in columns]
            known = [[run[key] for run in runs if key in run] for key in keys]
            print(f"{block:<6}{name:12}" + "".join(f"{spread(values) if values else '-':24}" for values in known))
    last = blocks[-1]
    print(f"corruption error of block {last}, blockwise divided by end to end")
    for key in [key for key in found["blockwise"][0] if key[0] == last and key[2] == "ce"]:
        values = [run[key] for run in found["blockwise"] if key in run]
        print(f"  {key[1].removeprefix('corruption/'):20}{spread(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--corruptions", default="standard", help="as evaluation.corruptions.names")
    parser.add_argument("--severities", default="[1,2,3,4,5]", help="as evaluation.corruptions.severities")
    parser.add_argument("override", nargs="*", help="KEY=VALUE for both trainings")
    arguments = parser.parse_args()
    print(machine())
    print(f"{arguments.epochs} epochs, {arguments.seeds} seeds; quick linear probe on the trunk; errors from 0 to 1")
    found: dict[str, list[Found]] = {name: [] for name in CONFIGS}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            baseline = None
            for name, config in CONFIGS.items():
                run = Path(folder) / config.removesuffix(".yaml")
                found[name].append(measured(run, config, seed, arguments, baseline))
                baseline = run
    table(found)


if __name__ == "__main__":
    main()
