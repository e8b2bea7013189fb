"""How many images a second one core augments, against the released pipeline in the same rounds.

    python tests/benchmarks/augmentation.py [--rounds 12] [--size 224] [--size 32] [--quick] [--core N]

Every candidate makes both views of the same images; the candidates take turns within a round, and the table has the
median of the rounds' ratios, with the smallest and the largest. Times are those of the
processor, so that whatever else runs matters less. Images lie in memory (packed pixels in a memory map): nothing is
read from a disk. Needs scikit-image and scikit-learn, for their photographs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from common.photographs import jpeg, photograph, shrunk
from common.released import MEAN, STD, ReleasedTransform, open_image
from common.runs import machine
from PIL import Image

from pipeline.config import AugmentConfig, DataConfig, JitterConfig
from pipeline.data.augment.normalize import Normalize
from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.decoding import decode

Candidate = Callable[[int], object]
"""Augments the image of that number."""
BASELINE = "released (torchvision on PIL, float32)"
CROP_ONLY = AugmentConfig(flip_p=0.0, jitter=JitterConfig(p=0.0), gray_p=0.0, blur_p=0.0, solarize_p=0.0)
SHORT_SIDE = 256
CUTS = 10
"""Small images out of each photograph."""


class Ours:
    """Pixels to views, in the bytes of a slot of the feed, or normalised floats."""

    def __init__(
        self, pixels: Callable[[int], np.ndarray], size: int, crop_only: bool, backend: str, floats: bool
    ) -> None:
        augment = CROP_ONLY if crop_only else AugmentConfig()
        self.data = DataConfig(image_size=size, augment=augment, augment_backend=backend)
        self.maker = ViewMaker(self.data, 2, seed=0)
        self.pixels, self.floats, self.made = pixels, floats, 0
        self.slot = np.zeros((2, size, size, 3), np.uint8)
        self.normalize = Normalize(MEAN, STD)

    def __call__(self, index: int) -> object:
        self.made += 1
        self.maker.make(self.pixels(index), self.made, index, self.slot)
        return self.normalize(torch.from_numpy(self.slot)) if self.floats else self.slot

    def parts(self, count: int) -> str:
        """Milliseconds an image, by part: a pass of its own, since looking at the clock takes time too."""
        maker = ViewMaker(self.data, 2, seed=0, clock=time.process_time)
        decoding = 0.0
        for index in range(count):
            started = time.process_time()
            pixels = self.pixels(index)
            decoding += time.process_time() - started
            maker.make(pixels, 0, index, self.slot)
        seconds = {"decode": decoding, **maker.seconds}
        return "  ".join(f"{part} {1000 * spent / count:.3f}" for part, spent in seconds.items())


def compare(title: str, candidates: dict[str, Candidate], images: int, count: int, rounds: int) -> None:
    """Print a table; `count` images a candidate and round, of the `images` there are."""
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        candidates[name](0)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.process_time()
            for index in range(count):
                candidates[name]((turn * count + index) % images)
            seconds[name].append(time.process_time() - started)
    print(f"\n{title}, {rounds} rounds of {count} images")
    print("| candidate | images/s | ratio, median [min-max] |\n|---|---|---|")
    for name in names:
        ratios = [base / own for base, own in zip(seconds[BASELINE], seconds[name], strict=True)]
        rate = count / median(seconds[name])
        print(f"| {name} | {rate:.0f} | {median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] |", flush=True)
    for name, candidate in candidates.items():
        if isinstance(candidate, Ours) and not candidate.floats:
            print(f"  {name}, ms an image: {candidate.parts(images)}", flush=True)


def of_files(size: int, images: int, count: int, rounds: int, folder: Path) -> None:
    """Encoded photographs, and the same packed beforehand."""
    photographs = [photograph(index) for index in range(images)]
    files = [jpeg(image) for image in photographs]
    small = [shrunk(image, SHORT_SIDE) for image in photographs]
    packed = [jpeg(image) for image in small]
    raw = memory_map([np.asarray(image) for image in small], folder / "pixels.bin")
    print(f"\n{images} photographs, {sum(map(len, files)) / images / 1000:.0f} kB each")
    for crop_only in (False, True):
        released = ReleasedTransform(size, crop_only)

        def ours(pixels: Callable[[int], np.ndarray], backend: str = "fast", floats: bool = False) -> Ours:
            return Ours(pixels, size, crop_only, backend, floats)  # noqa: B023 - called before the next turn

        candidates: dict[str, Candidate] = {
            BASELINE: lambda index: released(open_image(files[index])),  # noqa: B023 - likewise
            "fast, uint8": ours(lambda index: decode(files[index], "image")),
            "fast, float32": ours(lambda index: decode(files[index], "image"), floats=True),
            "pil, uint8": ours(lambda index: decode(files[index], "image"), "pil"),
            "fast, uint8, packed as JPEG": ours(lambda index: decode(packed[index], "image")),
            "fast, uint8, packed raw": ours(lambda index: raw[index]),
        }
        what = "crop only" if crop_only else "full augmentation"
        compare(f"{size} pixels, {what}", candidates, images, count, rounds)


def of_arrays(size: int, images: int, count: int, rounds: int) -> None:
    """Small images, undecoded, as CIFAR's."""
    photographs = [photograph(index) for index in range(images // CUTS)]
    squares = [(7.0 * cut, 7.0 * cut, 300 + 7.0 * cut, 300 + 7.0 * cut) for cut in range(CUTS)]
    arrays = [np.asarray(p.resize((size, size), Image.Resampling.BOX, box=box)) for box in squares for p in photographs]
    for crop_only in (False, True):
        released = ReleasedTransform(size, crop_only)
        candidates: dict[str, Candidate] = {
            BASELINE: lambda index: released(Image.fromarray(arrays[index])),  # noqa: B023 - used before the next turn
            "fast, uint8": Ours(arrays.__getitem__, size, crop_only, "fast", False),
            "fast, float32": Ours(arrays.__getitem__, size, crop_only, "fast", True),
            "pil, uint8": Ours(arrays.__getitem__, size, crop_only, "pil", False),
        }
        what = "crop only" if crop_only else "full augmentation"
        compare(f"{size} pixels, {what}", candidates, images, count, rounds)


def memory_map(arrays: list[np.ndarray], path: Path) -> list[np.ndarray]:
    """The pixels of `arrays` in one file, mapped."""
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    mapped = np.memmap(path, np.uint8, mode="r")
    ends = np.cumsum([array.size for array in arrays])
    return [
        np.asarray(mapped[end - array.size : end]).reshape(array.shape)
        for array, end in zip(arrays, ends.tolist(), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--size", type=int, action="append", help="side of the views, in pixels (default: 224 and 32)")
    parser.add_argument("--core", type=int, help="the core to stay on (default: the last one)")
    parser.add_argument("--quick", action="store_true", help="fewer images a round")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if arguments.core is None else arguments.core})
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(machine())
    images, count = (40, 10) if arguments.quick else (200, 40)
    for size in arguments.size or [224, 32]:
        if size > 64:
            with tempfile.TemporaryDirectory() as folder:
                of_files(size, images, count, arguments.rounds, Path(folder))
        else:
            of_arrays(size, 10 * images, 10 * count, arguments.rounds)


if __name__ == "__main__":
    main()
