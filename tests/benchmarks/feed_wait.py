"""How long a pipelined run waits for its images, as a share of what its slowest stage computes.

    python tests/benchmarks/feed_wait.py [--steps 60] [--deep-steps 8] [--workers 0]

Two runs: the quickstart configuration, and a ResNet-50 on views of 96 pixels. The feed is hidden as long as the share
is small: then the slowest stage sets the pace. The fill of the pipeline at the start does not count.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common.runs import ROOT, machine, train

DEEP = [
    "model.backbone=resnet50",
    "model.width=64",
    "data.image_size=96",
    "data.batch_size=16",
]


def measure(name: str, config: Path, *overrides: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        report = train(Path(place) / "run", config, "evaluation.linear_probe=false", *overrides)
    feed = report["feed"]
    seconds = report["images"] / report["images_per_second"]
    waited = feed["wait_share"] * seconds
    busy = max(stage["busy_seconds"] for stage in report["stages"])
    shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in feed["shares"].items())
    print(f"{name:28} {report['images_per_second']:8.1f} images/s   waited {waited:.2f} s of {seconds:.1f} s, ", end="")
    print(f"{100 * waited / busy:.2f} % of the slowest stage's {busy:.1f} s   ({shares})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--deep-steps", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    print(machine())
    workers, quickstart = f"data.workers={arguments.workers}", ROOT / "configs" / "quickstart.yaml"
    measure("quickstart", quickstart, f"train.max_steps={arguments.steps}", workers)
    measure("ResNet-50, 96 pixels", quickstart, f"train.max_steps={arguments.deep_steps}", workers, *DEEP)


if __name__ == "__main__":
    main()
