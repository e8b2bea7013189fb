"""How well what is measured while training agrees with `onward evaluate` of the same weights, by block and snapshot.

    python tests/benchmarks/online_offline.py [--epochs 15] [--snapshots 5] [--config configs/quickstart.yaml]

Online numbers are of augmented training images, batch statistics and a classifier that is still being fitted; offline
ones are of test images (accuracy) or of ten views of training images (quality). So they differ; the question is whether
they order blocks and checkpoints alike: Spearman's rank correlation over all of them, and over the blocks of the last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from common.runs import ROOT, machine, steps, train
from scipy.stats import spearmanr

K, TEMPERATURE = 20, 0.07
MEASURES = {
    "linear": ("linear/quick", "top1"),
    "knn": (f"knn/{K}", "top1"),
    "rankme": ("quality", "rankme"),
    "lidar": ("quality", "lidar"),
    "alpha": ("quality", "alpha"),
    "collapse": ("quality", "collapse"),
}
"""By their name online: measure and metric of `evaluation.json`."""
Values = dict[tuple[int, int], float]
"""By steps and block."""


def online_values(run: Path, every: int, last: int) -> dict[str, Values]:
    """What was said last before each snapshot."""
    found: dict[str, Values] = {name: {} for name in MEASURES}
    for line in steps(run):
        snapshot = -(-(line["step"] + 1) // every) * every
        for stage in line["stages"]:
            for name, value in stage["online"].items():
                if name in found and value is not None and snapshot <= last:
                    found[name][snapshot, stage["stage"]] = value
    return found


def offline_values(run: Path, snapshot: int, images: int) -> dict[str, Values]:
    """What `onward evaluate` says of a snapshot."""
    settings = [
        f"evaluation.checkpoint={snapshot}",
        "evaluation.places=[trunk]",
        f"evaluation.knn={{k: [{K}], temperature: {TEMPERATURE}}}",
        f"evaluation.quality={{samples: {images}, places: [trunk]}}",
        "evaluation.plots=false",
        "evaluation.cache=false",
    ]
    command = [sys.executable, "-m", "launch.cli", "evaluate", str(run), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=3600, cwd=ROOT)
    records = json.loads((run / "evaluation.json").read_text())["results"]
    known = {(r["measure"], r["metric"], r["block"]): r["value"] for r in records if r["feature"] == "trunk"}
    return {
        name: {(snapshot, block): value for (*key, block), value in known.items() if tuple(key) == wanted}
        for name, wanted in MEASURES.items()
    }


def show(name: str, online: Values, offline: Values) -> None:
    """One measure: a row a snapshot, online and offline of every block, then how they agree."""
    keys = sorted(online.keys() & offline.keys())
    scale, digits = (100, 1) if name in ("linear", "knn") else (1, 3)
    print(f"\n{name}{', %' if scale == 100 else ''}: online / offline, by block")
    for snapshot in sorted({key[0] for key in keys}):
        cells = [f"{scale * online[k]:8.{digits}f} /{scale * offline[k]:8.{digits}f}" for k in keys if k[0] == snapshot]
        print(f"  {snapshot:6} steps ", "  ".join(cells))
    differences = [scale * (online[key] - offline[key]) for key in keys]
    print(f"  online - offline: mean {mean(differences):+.{digits}f}", end="")
    print(f", from {min(differences):+.{digits}f} to {max(differences):+.{digits}f}")
    last = [key for key in keys if key[0] == keys[-1][0]]
    for text, chosen in (("blocks and snapshots", keys), ("the blocks of the last", last)):
        rank = spearmanr([online[key] for key in chosen], [offline[key] for key in chosen]).statistic
        print(f"  Spearman over {text} ({len(chosen)}): {rank:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps-per-epoch", type=int, default=39, help="of the configuration, to place snapshots")
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--bank", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=1024, help="images whose quality is measured")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    given = parser.parse_args()
    print(machine())
    every = given.epochs * given.steps_per_epoch // given.snapshots
    last = every * given.snapshots
    quality = f"quality_every: {every}, quality_samples: {given.samples}"
    online = f"{{linear: true, knn_bank: {given.bank}, knn_k: {K}, {quality}}}"
    fixed = [f"train.epochs={given.epochs}", f"snapshots={{every: {every}, keep_last: {given.snapshots}}}"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(run, given.config, *fixed, f"evaluation.online={online}", "evaluation.linear_probe=false")
        found = online_values(run, every, last)
        expected: dict[str, Values] = {name: {} for name in MEASURES}
        for snapshot in range(every, last + 1, every):
            for name, values in offline_values(run, snapshot, given.samples).items():
                expected[name] |= values
    print(f"{given.epochs} epochs, a snapshot every {every} steps")
    for name in MEASURES:
        show(name, found[name], expected[name])


if __name__ == "__main__":
    main()
