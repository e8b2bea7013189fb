"""What features cost: of all blocks and of the last one, made and read back, decoded by one thread and by more.

    python tests/benchmarks/evaluation_speed.py
    python tests/benchmarks/evaluation_speed.py --images 2000 --photographs 200

The first table is of the quickstart's network, untrained, on the 10,000 images that come with the package, in one pass;
the second of decoding photographs into the view that is evaluated on, 224 pixels, which nothing else waits for.
Every line is relative to one of the same run; machines and loads differ.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from common.photographs import jpeg, photograph
from common.runs import ROOT, machine

from pipeline.config import Config
from pipeline.config.places import FEATURES, Place
from pipeline.data.sets.datasets import open_dataset
from pipeline.evaluation.features import places_of
from pipeline.validation.loading import load_config
from workers.evaluating.extraction import Extractor, evaluation_load, in_order, whole_batches
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.probe_table import ready_stages

CPU = torch.device("cpu")
REPEATS = 3
SOURCES = 20
"""Different photographs."""
THREADS = (1, 2, 4)
LAST = "trunk and expansion of the last block"


def best(acts: dict[str, Callable[[], object]], clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds of the quickest of a few times of each, taken in turns: what else the machine does disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(REPEATS):
        for name, act in acts.items():
            started = clock()
            act()
            times[name].append(clock() - started)
    return {name: min(taken) for name, taken in times.items()}


def extraction(config: Config, images: int, places: Collection[Place], threads: int) -> Callable[[], object]:
    """Makes the features of so many images with so many threads."""
    data = open_dataset(config.data, "train")
    own = config.evaluation.model_copy(update={"workers": threads})
    config = config.model_copy(update={"evaluation": own})
    extractor = Extractor(config, ready_stages(config, CPU), CPU)
    batches, load = whole_batches(images, config.evaluation.batch_size), evaluation_load(data, config.data)
    return lambda: [None for _ in extractor.run(batches, load, places)]


def reading(config: Config, places: Collection[Place]) -> tuple[float, float]:
    """Seconds to make and keep the features of the training set, and to read them back, digests compared."""
    stages, images = ready_stages(config, CPU), open_dataset(config.data, "train")

    def get(folder: Path) -> None:
        FeatureSource(config, stages, CPU, folder).get("train", images, config.data, places, lambda *how_far: None)

    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        get(Path(place))
        made = time.perf_counter() - started
        return made, best({"": lambda: get(Path(place))})[""]


def decoding(count: int, numbers: Collection[int]) -> dict[str, float]:
    """Seconds for so many photographs, by the number of threads that decode them into the view that is evaluated on."""
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    with tempfile.TemporaryDirectory() as folder:
        classes = Path(folder) / "train" / "photographs"
        classes.mkdir(parents=True)
        files = [jpeg(photograph(number)) for number in range(SOURCES)]
        for number in range(count):
            (classes / f"{number:05}.jpg").write_bytes(files[number % SOURCES])
        data = config.data.model_copy(update={"name": "image_folder", "root": folder, "image_size": 224})
        load, batches = evaluation_load(open_dataset(data, "train"), data), whole_batches(count, 16)
        return best({str(n): lambda n=n: [None for _ in in_order(load, batches, n)] for n in numbers})


def print_extraction(config: Config, images: int) -> None:
    """The first table."""
    stages = ready_stages(config, CPU)
    last = (len(stages),)
    cases = {
        "trunk of the last block": places_of(stages, ("trunk",), last),
        LAST: places_of(stages, ("trunk", "expansion"), last),
        "trunk and expansion of all blocks": places_of(stages, ("trunk", "expansion")),
        "all three of all blocks": places_of(stages, FEATURES),
    }
    acts = {name: extraction(config, images, places, 1) for name, places in cases.items()}
    seconds = best(acts, time.process_time)
    print(f"features of {images} images, one thread, CPU time")
    for name, taken in seconds.items():
        print(f"  {name:40}{images / taken:8.0f} images/s {taken / seconds[LAST]:6.2f} times the last block's")
    table = cases["trunk and expansion of all blocks"]
    threads = Extractor(config, stages, CPU).threads
    walls = best({str(n): extraction(config, images, table, n) for n in (1, threads)})
    print(
        f"trunk and expansion of all blocks, {threads} threads: {walls['1'] / walls[str(threads)]:.2f} times as quick"
    )
    made, read = reading(config, table)
    print(f"read from the cache, digests compared, instead of made and kept: {made / read:.0f} times as quick")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--photographs", type=int, default=400)
    arguments = parser.parse_args()
    print(machine())
    print_extraction(load_config(ROOT / "configs" / "quickstart.yaml"), arguments.images)
    seconds = decoding(arguments.photographs, THREADS)
    print("photographs of 500 x 375 pixels, decoded for an evaluation")
    for threads, taken in seconds.items():
        rate = arguments.photographs / taken
        print(f"  {threads} threads {rate:8.0f} images/s {seconds['1'] / taken:6.2f} times one thread's", flush=True)


if __name__ == "__main__":
    main()
