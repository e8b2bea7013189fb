"""What a batch costs the workers and the first stage, with the colours made by either (`data.augment_on`).

    python tests/benchmarks/device_photometrics.py [--device cuda] [--size 224] [--batch 128] [--rounds 9]

`workers`: one worker makes the views whole. `device`: the worker crops and flips; then the device finishes the batch,
drawing included, from bytes in pageable memory to bytes on the device. All take turns within a round; ratios are to the
worker that makes the views whole, in the same round. Photographs lie decoded in memory, so that both workers are
compared by what they do not share. `device` is made for GPUs: with `--device cpu` the table shows what it would cost
the stage that everything waits for. Needs scikit-image and scikit-learn, for their photographs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
import torch
from common.photographs import photograph
from common.runs import machine

from pipeline.config import DataConfig
from pipeline.data.augment.device_photometrics import Photometrics
from pipeline.data.augment.views import ViewMaker

BASELINE = "workers: one worker makes all of a view"


def worker(data: DataConfig, images: list[np.ndarray], photometrics: bool) -> Callable[[int], torch.Tensor]:
    """Makes the batch of a round, `[2, B, S, S, 3]`, always in the same memory."""
    maker = ViewMaker(data, 2, seed=0, photometrics=photometrics)
    slot = np.zeros((2, len(images), data.image_size, data.image_size, 3), np.uint8)

    def make(turn: int) -> torch.Tensor:
        for index, pixels in enumerate(images):
            maker.make(pixels, turn, index, slot[:, index])
        return torch.from_numpy(slot)

    return make


def finisher(data: DataConfig, cropped: torch.Tensor, device: torch.device) -> Callable[[int], torch.Tensor]:
    """Finishes the batch of a round on `device`, and waits for it."""
    finish, numbers = Photometrics(data, 2, seed=0), np.arange(cropped.shape[1])

    def run(turn: int) -> torch.Tensor:
        views = finish(cropped.to(device), turn, numbers)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return views

    return run


def measure(
    candidates: dict[str, Callable[[int], torch.Tensor]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every candidate in every round, after one that does not count."""
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = clock()
            candidates[name](turn)
            seconds[name].append(clock() - started)
    return {name: times[1:] for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    device, batch = torch.device(arguments.device), arguments.batch
    data = DataConfig(image_size=arguments.size, batch_size=batch)
    images = [np.asarray(photograph(index)) for index in range(batch)]
    crops = worker(data, images, photometrics=False)
    candidates = {
        BASELINE: worker(data, images, photometrics=True),
        "device: what is left to one worker": crops,
        f"device: what the first stage does ({device})": finisher(data, crops(0).clone(), device),
    }
    # Where all of it is done by this process, what else runs on the machine then counts less.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = measure(candidates, arguments.rounds, clock)
    print(machine())
    print(f"{batch} images, two views of {arguments.size} pixels, {arguments.rounds} rounds")
    print("| who | ms a batch | speed, as a multiple of the first row: median [min-max] |\n|---|---|---|")
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds[BASELINE], times, strict=True)]
        print(f"| {name} | {1000 * median(times):.1f} | {median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] |")
    if device.type == "cuda":
        print(f"most memory on the device: {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
