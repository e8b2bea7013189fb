"""What tests of the feed have in common: a folder of small photos, batches that are kept, and faults in workers."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import Config, DataConfig, LinkConfig, TrainConfig
from tests.waiting import LIMIT
from workers.feed import Feed, FeedBatch
from workers.feed.pool import Pool
from workers.feed.worker_process import Worker

IMAGES = 23


def write_photos(folder: Path) -> Path:
    """23 small photos in two classes, some gray."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        place = folder / f"class{i % 2}"
        place.mkdir(exist_ok=True, parents=True)
        size = (20 + i, 30, 3) if i % 3 else (25, 25)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place / f"{i:02}.jpg")
    return folder


def config(
    root: Path, *, workers: int = 0, epochs: int = 2, timeout: float = 2 * LIMIT, labels: bool = False, **data: object
) -> Config:
    section = {"name": "image_folder", "root": str(root), "batch_size": 8, "image_size": 16, "drop_last": False}
    run = Config(
        seed=5,
        data=DataConfig(**{**section, "workers": workers, **data}),  # type: ignore[arg-type]
        train=TrainConfig(epochs=epochs),
        link=LinkConfig(timeout=timeout),
    )
    if labels:
        run = Config.model_validate({**run.model_dump(), "objective": {"kind": "supervised"}})
    return run


def batches(run: Config, start_step: int = 0, part: tuple[int, int] = (0, 1)) -> list[FeedBatch]:
    """All of them, each with memory of its own."""
    with Feed(run, start_step, part) as feed:
        return [replace(batch, views=batch.views.clone()) for batch in feed]


def assert_same(left: list[FeedBatch], right: list[FeedBatch]) -> None:
    assert [(b.step, b.epoch, b.last) for b in left] == [(b.step, b.epoch, b.last) for b in right]
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.views, other.views)
        np.testing.assert_array_equal(one.samples, other.samples)
        assert (one.labels is None) == (other.labels is None)
        if one.labels is not None:
            np.testing.assert_array_equal(one.labels, other.labels)


def workers_of(running: Feed) -> list[Worker]:
    source = running._source
    assert isinstance(source, Pool)
    return source._workers


def ready(running: Feed, count: int) -> bool:
    return sum(found.ready for found in workers_of(running)) == count


def fault_in_workers(folder: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Have every worker process run `action` before it reads an image, whose number it knows as `index`.

    Workers look for modules where this process does, and Python imports `sitecustomize` from there at its start.
    """
    action = textwrap.indent(textwrap.dedent(action).strip(), " " * 8)
    place = folder / "customized"
    place.mkdir()
    (place / "sitecustomize.py").write_text(f"""
import sys

if "workers.feed.worker_main" in sys.orig_argv:
    import os, signal, time
    from pipeline.data.sets import datasets

    class Faulty:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __len__(self):
            return len(self.inner)

        def pixels(self, index):
            self.fault(index)
            return self.inner.pixels(index)

        def fault(self, index):
{textwrap.indent(action, "    ")}

    opened = datasets.open_dataset
    datasets.open_dataset = lambda *args, **keys: Faulty(opened(*args, **keys))
""")
    monkeypatch.syspath_prepend(str(place))
