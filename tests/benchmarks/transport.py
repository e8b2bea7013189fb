"""From a feed worker to the trainer: the ring against torch's DataLoader, alone and with the whole augmentation.

    python tests/benchmarks/transport.py [--rounds 8] [--only transport|augmented]

`transport`: a worker copies a batch that is ready into what the consumer gets; nothing is decoded or augmented. Beside
both candidates, a plain copy of the batch within one process. `augmented`: images a second and worker at 224 pixels,
from JPEG files to normalised floats in the consumer: the feed with `augment_backend: fast` against the released
pipeline (torchvision on PIL images, normalised in the worker) in a DataLoader. One worker each, on a core of its own.
Candidates take turns, so a machine whose speed drifts drifts for all of them; only the ratios mean something.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common.photographs import jpeg, photograph
from common.released import MEAN, STD, ReleasedTransform, open_image
from common.runs import machine
from torch.utils.data import DataLoader, Dataset

from pipeline.config import Config, DataConfig, TrainConfig
from pipeline.data.augment.normalize import Normalize
from workers.feed import Feed

BATCH = 128
IMAGES = 128
ENDLESS = 10**7
AHEAD = 3
"""Batches that are made before they are asked for, at most."""
CORES = os.sched_getaffinity(0)
COPYING = """
    # A worker of the feed whose images are ready: what is left is to copy them to where the consumer looks.
    import sys
    if "workers.feed.worker_main" in sys.orig_argv:
        import numpy as np
        from workers.feed.batch_plan import Layout
        from workers.feed.view_worker import Maker

        ready = {}

        def make(self, chunk):
            layout = Layout.of(self._data, self._num_views, chunk.epoch, chunk.rows)
            rows = slice(chunk.first, chunk.first + len(chunk.samples))
            for view in layout.views(self._ring.slot(chunk.slot)):
                if view.shape not in ready:
                    ready[view.shape] = np.full(view.shape, 7, np.uint8)
                view[rows] = ready[view.shape][rows]
            return []

        Maker.make = make
"""


class Ready(Dataset[torch.Tensor]):
    """Batches of two views that are ready; a loader's worker has to hand out a copy."""

    def __init__(self, size: int) -> None:
        self.batch = torch.full((2, BATCH, size, size, 3), 7, dtype=torch.uint8)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.batch.clone()


class Released(Dataset[torch.Tensor]):
    """Two views of each file by the released pipeline, normalised floats, as torchvision's `ImageFolder` reads it."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files, self.transform = files, ReleasedTransform(size)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(open_image(self.files[index % len(self.files)].read_bytes()))


class Candidate:
    """One way to get batches, timed by turns.

    Args:
        batches: an iterator that does not end.
        use: what the consumer does with each.
    """

    def __init__(self, batches: Iterator[Any], use: Callable[[Any], object]) -> None:
        self.batches, self.use = batches, use
        self.seconds: list[float] = []

    def time(self, count: int) -> None:
        """Note the seconds a batch, over `count` of them, once those that were made ahead are used up."""
        for _ in range(AHEAD):
            self.use(next(self.batches))
        started = time.perf_counter()
        for _ in range(count):
            self.use(next(self.batches))
        self.seconds.append((time.perf_counter() - started) / count)
        time.sleep(2 * AHEAD * self.seconds[-1])  # it fills up again, in nobody's way


def touch(views: torch.Tensor) -> None:
    """Read from every page, so that whoever maps memory late pays for it here."""
    views.flatten()[::4096].sum()


def loader_of(data: Dataset[torch.Tensor], batch_size: int | None) -> DataLoader[torch.Tensor]:
    def alone(_: int) -> None:
        torch.set_num_threads(1)
        os.sched_setaffinity(0, {max(CORES)})

    return DataLoader(data, batch_size=batch_size, num_workers=1, worker_init_fn=alone)


def feed_of(**data: Any) -> Feed:
    feed = Feed(Config(data=DataConfig(workers=1, affinity=False, **data), train=TrainConfig(epochs=10**6)))
    while feed._ready.qsize() < AHEAD:
        time.sleep(0.01)
    for worker in feed._source._workers:  # type: ignore[attr-defined]
        os.sched_setaffinity(worker.process.pid, {max(CORES)})
    return feed


def transport(size: int, rounds: int) -> None:
    data, count = Ready(size), 20 if size > 100 else 200
    target = data.batch.clone()
    copies = (target.copy_(data.batch) for _ in iter(int, 1))
    with feed_of(batch_size=BATCH, image_size=size) as feed:
        candidates = {
            "copy in one process": Candidate(copies, touch),
            "ring": Candidate(feed, lambda found: touch(found.views)),
            "DataLoader": Candidate(iter(loader_of(data, None)), touch),
        }
        take_turns(candidates, rounds, count)
    megabytes = data.batch.numel() / 1e6
    print(f"\ntransport of {BATCH} x 2 views of {size} pixels, uint8, {megabytes:.1f} MB a batch")
    table(candidates, "ring", lambda value: f"{1e3 * value:8.2f} ms")


def augmented(rounds: int, folder: Path) -> None:
    files, batch, normalize = sorted(folder.rglob("*.jpg")), 32, Normalize(MEAN, STD)
    section = {"name": "image_folder", "root": str(folder), "batch_size": batch, "image_size": 224}
    with feed_of(**section) as feed:
        released = iter(loader_of(Released(files, 224), batch))
        candidates = {
            "ring, fast": Candidate(feed, lambda found: normalize(found.views)),
            "DataLoader, released": Candidate(released, touch),
        }
        take_turns(candidates, rounds, 4)
    print("\nJPEG files to two normalised views of 224 pixels, one worker")
    table(candidates, "ring, fast", lambda value: f"{batch / value:8.1f} images/s and worker")


def take_turns(candidates: dict[str, Candidate], rounds: int, count: int) -> None:
    names = list(candidates)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            candidates[name].time(count)


def table(candidates: dict[str, Candidate], ours: str, shown: Callable[[float], str]) -> None:
    for name, candidate in candidates.items():
        ratios = [theirs / mine for theirs, mine in zip(candidate.seconds, candidates[ours].seconds, strict=True)]
        spread = f"[{min(ratios):.2f} to {max(ratios):.2f}]"
        line = f"  {name:22} {shown(median(candidate.seconds))}   time / {ours}: {median(ratios):5.2f} {spread}"
        print(line, flush=True)


@contextmanager
def customized(place: Path) -> Iterator[None]:
    """Worker processes copy views that are ready: Python imports `sitecustomize` at its start."""
    folder = place / "customized"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(COPYING))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=("transport", "augmented"))
    arguments = parser.parse_args()
    print(machine())
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(CORES)})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        (folder / "class").mkdir(parents=True)
        for index in range(IMAGES):
            (folder / "class" / f"{index:03}.jpg").write_bytes(jpeg(photograph(index)))
        if arguments.only != "augmented":
            with customized(Path(place)):
                for size in (224, 32):
                    transport(size, arguments.rounds)
        if arguments.only != "transport":
            augmented(arguments.rounds, folder)


if __name__ == "__main__":
    main()
