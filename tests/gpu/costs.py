"""What surrounds the computing: links, the feed, augmentation, and being seen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.config import Config, DataConfig, TrainConfig
from tests.benchmarks.link_throughput import measure as measure_links
from tests.gpu.networks import sizes
from tests.gpu.running import folder, train
from tests.gpu.setting import Setting
from tests.runs import ROOT
from workers.feed import Feed

BENCHMARKS = ROOT / "tests" / "benchmarks"
MEGABYTES, SMALL_MEGABYTES = (1.0, 12.0, 50.0, 400.0), (0.001, 0.012, 0.05, 0.4)
FILE_SIDES = (375, 500)
"""Pixels of the images of the feed, as those of ImageNet have them."""
OBSERVED = ("off", "defaults", "a trace")
"""Of the variants of tests/benchmarks/metrics_cost.py."""


def link(setting: Setting, kind: str) -> dict[str, Any]:
    """Seconds of a message by size, with those of a copy on the device and of a socket."""
    megabytes = SMALL_MEGABYTES if setting.small else MEGABYTES
    found = measure_links([kind], 3 if setting.small else 8, True, setting.device, megabytes, setting.seconds)
    if len(found) != len(megabytes):
        raise RuntimeError(f"{len(found)} of {len(megabytes)} sizes were measured")
    return {"sizes": found}


def feed(setting: Setting) -> dict[str, Any]:
    """Images/s that the feed makes of JPEG files: whole views, and what it leaves to the device."""
    side = sizes("resnet50", setting.small)["side"]
    with folder() as place:
        write_photographs(place, 2 * setting.batch)
        section = {"name": "image_folder", "root": str(place), "batch_size": setting.batch, "image_size": side}
        rates = {}
        for where in ("workers", "device"):
            data = DataConfig(**section, workers=setting.workers, augment_on=where)
            with Feed(Config(data=data, train=TrainConfig(epochs=10**6), device=setting.of_runs)) as batches:
                rates[where] = rate_of(batches, 2 if setting.small else 8) * setting.batch
    return {"images_per_second": rates, "workers": max(setting.workers, 1), "side": side}


def rate_of(feed: Feed, count: int) -> float:
    """Batches a second, once those that it made ahead are used up."""
    for _ in range(3):
        next(feed)
    began = time.perf_counter()
    for _ in range(count):
        next(feed)
    return count / (time.perf_counter() - began)


def write_photographs(place: Path, count: int) -> None:
    """`count` JPEG files of random, smooth colours: 16 pictures, since drawing and encoding them takes time."""
    random, contents = np.random.default_rng(0), []
    target = place / "train" / "class0"
    target.mkdir(parents=True)
    for _ in range(min(count, 16)):
        path = place / "one.jpg"
        Image.fromarray(photograph(random, FILE_SIDES)).save(path, quality=90)
        contents.append(path.read_bytes())
        path.unlink()
    for number in range(count):
        (target / f"{number:05}.jpg").write_bytes(contents[number % len(contents)])


def photograph(random: np.random.Generator, sides: tuple[int, int]) -> np.ndarray:
    """Smooth colours with some noise, `[H, W, 3]` bytes."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(sides[::-1], Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def augmentation(setting: Setting) -> dict[str, Any]:
    """Milliseconds of a batch: all of it by one worker, what is left to one, and what the device does then."""
    sys.path.insert(0, str(BENCHMARKS))  # a script, which finds its `common` beside itself
    from tests.benchmarks.device_photometrics import finisher, worker
    from tests.benchmarks.device_photometrics import measure as take_turns

    side, batch = sizes("resnet50", setting.small)["side"], setting.batch if setting.small else 128
    data, device = DataConfig(image_size=side, batch_size=batch), torch.device(setting.of_tensors)
    random = np.random.default_rng(0)
    images = [photograph(random, (side, side) if setting.small else FILE_SIDES) for _ in range(min(batch, 16))]
    images = [images[number % len(images)] for number in range(batch)]
    crops = worker(data, images, photometrics=False)
    candidates = {
        "host": worker(data, images, photometrics=True),
        "host, what is left": crops,
        "device": finisher(data, crops(0).clone(), device),
    }
    seconds = take_turns(candidates, 2 if setting.small else 5, time.perf_counter)
    return {
        "milliseconds": {name: 1e3 * median(times) for name, times in seconds.items()},
        "batch": batch,
        "side": side,
    }


def metrics(setting: Setting) -> dict[str, Any]:
    """Images/s of runs that differ in what is observed, and the digest of each."""
    sys.path.insert(0, str(BENCHMARKS))
    from tests.benchmarks.metrics_cost import VARIANTS

    count = 6 if setting.small else 150
    config = None if setting.small else ROOT / "configs" / "quickstart.yaml"
    rates, digests = {}, []
    for name in OBSERVED:
        with folder() as place:
            common = (
                f"train.max_steps={count}",
                "evaluation.linear_probe=false",
                f"data.workers={min(setting.workers, 4)}",
            )
            report = train(setting, place, *common, *VARIANTS[name], config=config)
        rates[name] = report["images_per_second"]
        digests.append(report["final_digest"])
    return {"images_per_second": rates, "digests": digests}
