"""What a setting does to what is learned: accuracy of a linear probe on every block, for each of its values.

    python tests/benchmarks/setting_probe.py    # link.codec: none and int8
    python tests/benchmarks/setting_probe.py link.codec none bf16 fp16 int8
    python tests/benchmarks/setting_probe.py data.augment_backend pil fast --seeds 3

Runs in one process, where activations go through the same codec between two blocks as on a link, so the numbers are
those of a pipelined run. With several seeds the spread is printed too: a smaller difference means nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from common.runs import ROOT, machine, train


def scores(key: str, value: str, seed: int, epochs: int, config: Path) -> list[float]:
    """Accuracy on the trunk of every block, %."""
    with tempfile.TemporaryDirectory() as folder:
        given = [f"train.epochs={epochs}", f"seed={seed}", f"{key}={value}", "runtime=serial", "metrics.enabled=false"]
        report = train(Path(folder) / "run", config, *given)
    return [100 * block["trunk"] for block in report["trained"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", nargs="?", default="link.codec")
    parser.add_argument("values", nargs="*", help="two or more (default, of link.codec: none int8)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    arguments = parser.parse_args()
    values = arguments.values or (["none", "int8"] if arguments.key == "link.codec" else [])
    if not values:
        parser.error(f"give the values of {arguments.key}")
    print(machine())
    seeds, epochs = range(arguments.seeds), arguments.epochs
    print(f"linear probe on the trunk of every block, %; mean [range] of {len(seeds)} seeds, {epochs} epochs")
    for value in values:
        found = [scores(arguments.key, value, seed, epochs, arguments.config) for seed in seeds]
        blocks = (f"{mean(block):6.2f} [{min(block):.2f}-{max(block):.2f}]" for block in zip(*found, strict=True))
        print(f"  {value:8}", *blocks, flush=True)


if __name__ == "__main__":
    main()
