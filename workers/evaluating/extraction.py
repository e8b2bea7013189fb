"""Many images through a network: decoded in threads and, on a CPU, also computed in threads, one whole batch each.

Each thread computes whole batches with the run's own number of `threads` inside. So the result has the same bits for
any number of such threads, which more threads inside a batch would not guarantee; for small networks it is also faster.
Decoding and convolutions release the interpreter's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import Config, DataConfig
from pipeline.config.heads import ExpansionConfig
from pipeline.config.model import ModuleConfig
from pipeline.config.places import Place
from pipeline.data.augment.evaluation_view import evaluation_view
from pipeline.data.sets.datasets import ImageDataset
from pipeline.data.sets.memory import available_bytes
from pipeline.evaluation.features import embed
from pipeline.shapes import block_output
from pipeline.stage.stage import Stage
from workers.run.cores import core_count

Batch = range | NDArray[np.int64]
"""Numbers of the images of a batch."""
Load = Callable[[Batch], NDArray[np.uint8]]
"""Makes the pixels of a batch, uint8 `[B, S, S, 3]`; called in threads."""
Transform = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""From the view of an image, uint8 `[S, S, 3]`, and the number of the image to another such view."""
T = TypeVar("T")

CHUNK = 64
"""Images that a thread decodes at once, where it does nothing else."""
COPIES = 4
"""Tensors as large as a block's output that its forward holds at once."""


class Extractor:
    """Gives the embeddings of batches, in order, a few batches ahead.

    Args:
        config: of the run; `evaluation.workers` is the largest number of threads, 0 for one per core.
        stages: the network, in evaluation mode, on `device`.
        device: that it computes on.
        processes: how many on this host do the same.
    """

    def __init__(self, config: Config, stages: Sequence[Stage], device: torch.device, processes: int = 1) -> None:
        self.config, self.stages, self.device = config, stages, device
        self.threads = config.evaluation.workers or max(1, core_count() // config.threads // processes)
        # Compiled code and modules of the user's own may not be safe in several threads.
        safe = not isinstance(config.model, ModuleConfig) and not any(
            stage.config.precision.compile for stage in stages
        )
        self._computes_in_threads = device.type == "cpu" and safe

    def run(
        self, batches: Iterable[Batch], load: Load, places: Collection[Place]
    ) -> Iterator[tuple[Batch, dict[Place, Tensor]]]:
        """Every batch with its embeddings, float32 `[B, D]` on the CPU at each place.

        Args:
            batches: which images make up each batch.
            load: makes their pixels.
            places: of `pipeline.evaluation.features.places_of`.
        """
        torch.set_num_threads(self.config.threads)
        chosen, listed = tuple(places), list(batches)
        if self._computes_in_threads:
            threads = self.at_once(max(map(len, listed), default=1))

            def embedded(batch: Batch) -> dict[Place, Tensor]:
                return self._embed(load(batch), chosen)

            yield from zip(listed, in_order(embedded, listed, threads), strict=True)
            return
        parts = [batch[start : start + CHUNK] for batch in listed for start in range(0, len(batch), CHUNK)]
        loaded = in_order(load, parts, self.threads, ahead=2 * max(map(len, listed), default=1) // CHUNK)
        for batch in listed:
            pixels = np.concatenate([next(loaded) for _ in range(0, len(batch), CHUNK)])
            yield batch, self._embed(pixels, chosen)

    def at_once(self, rows: int) -> int:
        """How many batches of so many images are computed at the same time."""
        return min(self.threads, self._fitting(rows)) if self._computes_in_threads else 1

    def _embed(self, pixels: NDArray[np.uint8], places: tuple[Place, ...]) -> dict[Place, Tensor]:
        embeddings = embed(self.stages, torch.from_numpy(pixels).to(self.device), places)
        return {place: rows.cpu() for place, rows in embeddings.items()}

    def _fitting(self, rows: int) -> int:
        """Batches of so many images that may be computed at once without taking more than half of the memory."""
        per_batch = rows * max(self._bytes(stage) for stage in self.stages)
        available = available_bytes()
        return self.threads if available is None else max(1, available // 2 // per_batch)

    def _bytes(self, stage: Stage) -> int:
        """Memory that one image takes in a block and its head, roughly."""
        shape = block_output(self.config, stage.index)
        size = COPIES * prod(shape)
        if isinstance(stage.config.head, ExpansionConfig):  # its map, before and after batch norm
            size += 2 * stage.config.head.width * (prod(shape[1:]) if len(shape) == 3 else shape[0])
        return 4 * size


def in_order(act: Callable[[Batch], T], batches: Iterable[Batch], threads: int, ahead: int = 0) -> Iterator[T]:
    """The results of `act` for each batch, in order, computed in threads.

    Args:
        act: called in threads; what it raises is raised here.
        batches: its arguments.
        threads: how many.
        ahead: results that may wait beside those that are being computed.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="evaluation") as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(act, batch))
                if len(waiting) > threads + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def evaluation_load(images: ImageDataset, data: DataConfig, transform: Transform | None = None) -> Load:
    """Loads the evaluation's view of images, perhaps changed by `transform`; raises `UserError` if one is damaged."""

    def view(index: int) -> NDArray[np.uint8]:
        pixels = evaluation_view(images.image(index), data.image_size, data.eval_interpolation)
        return pixels if transform is None else transform(pixels, index)

    def load(batch: Batch) -> NDArray[np.uint8]:
        numbers = [int(index) for index in batch]
        images.prefetch(numbers)
        return np.stack([view(index) for index in numbers])

    return load


def whole_batches(count: int, size: int) -> list[Batch]:
    """Batches of `size` of the images 0 to `count`, in order; the last may be smaller."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
