"""How far the fast augmentation is from PIL's: every operation alone, and all together, with the same drawn parameters.

    python tests/benchmarks/equivalence.py [--images 200] [--size 224] [--size 32]

Levels are those of a byte. The table of docs/results/views.md is this one's. Needs scikit-image and scikit-learn, for
their photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from common.photographs import photograph
from common.runs import ROOT, machine

from pipeline.config import AugmentConfig, DataConfig
from pipeline.data.augment.views import ViewMaker

sys.path.insert(0, str(ROOT))

from tests.pipeline.data.samples import only

WHITE = 255

OPERATIONS = {
    "crop": only(),
    "flip": only(flip_p=1.0),
    "brightness": only({"brightness": 0.4}),
    "contrast": only({"contrast": 0.4}),
    "saturation": only({"saturation": 0.2}),
    "hue": only({"hue": 0.1}),
    "whole jitter": only({"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}),
    "grayscale": only(gray_p=1.0),
    "blur": only(blur_p=1.0),
    "blur by a kernel": only(blur_p=1.0, blur_kind="kernel"),
    "solarisation": only(solarize_p=1.0),
    "all": AugmentConfig(),
}


def differences(images: list[np.ndarray], augment: AugmentConfig, size: int, view: int) -> Iterator[np.ndarray]:
    """Fast less PIL, of every image: how many bytes differ by -255 to 255 levels, `[511]`."""
    makers = [ViewMaker(DataConfig(augment=augment, augment_backend=backend), 2, seed=0) for backend in ("fast", "pil")]
    views = np.zeros((2, 2, size, size, 3), np.uint8)
    for index, pixels in enumerate(images):
        for maker, out in zip(makers, views, strict=True):
            maker.make(pixels, 0, index, out)
        yield np.bincount((views[0, view].astype(np.int16) - views[1, view] + WHITE).ravel(), minlength=2 * WHITE + 1)


def row(name: str, counts: list[np.ndarray]) -> str:
    """A line of the table."""
    shares = np.stack(counts) / counts[0].sum()
    levels = np.arange(-WHITE, WHITE + 1)
    everything, squares = shares.mean(axis=0), shares @ np.square(levels)
    beyond = np.array([everything[np.abs(levels) > distance].sum() for distance in range(WHITE + 1)])
    psnr = [10 * np.log10(WHITE**2 / max(value, 1e-9)) for value in (squares.mean(), squares.max())]
    values = (everything @ np.abs(levels), np.argmax(beyond <= 0.01), 100 * beyond[8], *psnr, everything @ levels)
    return "| {} | {:.2f} | {:.0f} | {:.3f} | {:.1f} | {:.1f} | {:+.2f} |".format(name, *values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, action="append", help="side of the views, in pixels (default: 224 and 32)")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(machine())
    images = [np.asarray(photograph(index)) for index in range(arguments.images)]
    for size in arguments.size or [224, 32]:
        print(f"\n{size} pixels, {len(images)} photographs, both views where nothing is said")
        print("| operation | mean difference, levels | 99 % of pixels within | % of pixels beyond 8 | PSNR, dB | "
              "of the farthest image | brighter by |\n|---|---|---|---|---|---|---|")  # fmt: skip
        for name, augment in OPERATIONS.items():
            each = [list(differences(images, augment, size, view)) for view in (0, 1)]
            if name == "all":
                print(row("all, view 1", each[0]), row("all, view 2", each[1]), sep="\n", flush=True)
            else:
                print(row(name, each[0] + each[1]), flush=True)


if __name__ == "__main__":
    main()
