"""What a lossy codec on the links costs: accuracy of a linear probe on every block, with the bytes it saves.

    python tests/benchmarks/codec_probe.py [--epochs 5] [--seeds 2] [--config configs/quickstart.yaml]

Runs in one process, where activations go through the same codec between two blocks as on a link, so the numbers are
those of a pipelined run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from common.runs import ROOT, machine, train

CODECS = ("none", "bf16", "fp16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    arguments = parser.parse_args()
    print(machine())
    print(f"linear probe on the trunk, %, mean of {arguments.seeds} seeds, {arguments.epochs} epochs")
    for codec in CODECS:
        scores = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                given = [f"train.epochs={arguments.epochs}", f"seed={seed}", f"link.codec={codec}", "runtime=serial"]
                report = train(Path(folder) / "run", arguments.config, *given, "metrics.enabled=false")
            scores.append([100 * block["trunk"] for block in report["trained"]])
        blocks = zip(*scores, strict=True)
        print(f"  {codec:5}", *(f"{mean(block):6.2f}" for block in blocks), flush=True)


if __name__ == "__main__":
    main()
