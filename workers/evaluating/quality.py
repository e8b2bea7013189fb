"""Label-free quality of every block: augmented views of some images through the network, and the measures."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.evaluation import QualityConfig
from pipeline.config.places import Place
from pipeline.data.sets.memory import available_bytes
from pipeline.errors import ConfigError
from pipeline.evaluation.document import Record
from pipeline.evaluation.quality_views import QualityViews
from pipeline.measures.quality import alpha_of_spectrum, collapse_level, lidar, rankme, spectrum
from workers.evaluating.context import Context
from workers.evaluating.extraction import Batch
from workers.run.compute import cpu_threads
from workers.run.cores import core_count

MEASURE = "quality"
WORK = 3
"""Copies in float64 of one embedding, and of a square matrix of its smaller side, that the measures hold at once."""


def measure_quality(context: Context) -> list[Record]:
    """LiDAR, RankMe, alpha-ReQ and the collapse level of every place; their spectra go to `context.spectra`.

    All are measured on the same n x q augmented views. Where an embedding has too few dimensions for
    `evaluation.quality.ranks`, alpha-ReQ is left out with a note.

    Raises:
        ConfigError: more memory than is available.
        UserError: an image cannot be read, or embeddings are not finite.
    """
    settings = _settings(context)
    if not settings.enabled:
        return []
    places = context.places_of(dict.fromkeys(settings.places))
    embeddings = _embed(context, settings, places)
    records: list[Record] = []
    too_few: list[Place] = []
    # Large matrices gain from threads, which the forward passes must not use.
    with cpu_threads(core_count()):
        for done, place in enumerate(places, 1):
            numbers, values = _measures(embeddings.pop(place), settings, context.device)
            context.spectra[place.key] = values
            records += [
                Record(context.data_name, place.block, place.feature, MEASURE, metric, value=value)
                for metric, value in numbers.items()
            ]
            if "alpha" not in numbers:
                too_few.append(place)
            context.progress("measures without labels", done, len(places))
    if too_few:
        names = ", ".join(map(str, too_few))
        context.note(f"no alpha-ReQ of {names}: fewer dimensions than evaluation.quality.ranks={list(settings.ranks)}")
    return records


def _measures(rows: Tensor, settings: QualityConfig, device: torch.device) -> tuple[dict[str, float], list[float]]:
    """Every number by its metric, and the spectrum, of the embeddings `[n q, d]`."""
    try:
        return _measures_of(rows.to(device), settings)
    except torch.OutOfMemoryError:  # of a GPU; that the host has enough was checked before
        return _measures_of(rows, settings)


def _measures_of(rows: Tensor, settings: QualityConfig) -> tuple[dict[str, float], list[float]]:
    values = spectrum(rows)
    numbers = {
        "lidar": lidar(rows.view(-1, settings.views, rows.shape[1]), settings.delta, settings.epsilon),
        "rankme": rankme(rows, settings.epsilon),
        "collapse": collapse_level(rows),
    }
    if len(values) > settings.ranks[0]:
        power_law = alpha_of_spectrum(values, settings.ranks)
        numbers |= {"alpha": power_law.alpha, "alpha_r2": power_law.r2}
    return numbers, values.tolist()


def _settings(context: Context) -> QualityConfig:
    """Those of the run; where the training set has fewer images than `evaluation.quality.samples`, all of them."""
    settings = context.settings.quality
    if not settings.enabled or settings.samples <= (count := len(context.trained_images)):
        return settings
    context.note(f"quality on all {count} training images: evaluation.quality.samples={settings.samples} is more")
    return settings.model_copy(update={"samples": count})


def _embed(context: Context, settings: QualityConfig, places: Sequence[Place]) -> dict[Place, Tensor]:
    """float32 `[n q, d]` at every place, on the CPU; the views of one image are neighbours."""
    seed = context.settings.seed
    thread = threading.local()  # views are made in several threads, and each needs a maker of its own

    def load(batch: Batch) -> NDArray[np.uint8]:
        if not hasattr(thread, "views"):
            thread.views = QualityViews(context.data, context.trained_images, settings, seed)
        made: NDArray[np.uint8] = thread.views.make(batch)
        return made

    total = len(QualityViews(context.data, context.trained_images, settings, seed))
    size = context.settings.batch_size
    batches = [range(first, min(first + size, total)) for first in range(0, total, size)] if places else []
    kept: dict[Place, Tensor] = {}
    done = 0
    for embeddings in context.embedded(batches, load, places):
        if not kept:
            _check_memory({place: total * part.shape[1] for place, part in embeddings.items()}, total)
            kept = {place: torch.empty(total, part.shape[1]) for place, part in embeddings.items()}
        rows = len(next(iter(embeddings.values())))
        for place, part in embeddings.items():
            kept[place][done : done + rows] = part
        done += rows
        context.progress("augmented views", done, total)
    return kept


def quality_bytes(numbers: Sequence[int], rows: int) -> int:
    """What so many float32 numbers at each place take, and what the measures make of the largest of them.

    Args:
        numbers: of each place; at least one.
        rows: of every embedding.
    """
    largest = max(numbers)
    side = min(rows, largest // rows)
    return 4 * sum(numbers) + 8 * WORK * (largest + side * side)


def _check_memory(numbers: dict[Place, int], rows: int) -> None:
    """Raises if so many float32 numbers per place, and what the measures make of the largest, exceed the memory."""
    need, have = quality_bytes(list(numbers.values()), rows), available_bytes()
    if have is not None and need > have:
        raise ConfigError(
            "evaluation.quality.samples",
            f"the embeddings of {rows} views at {len(numbers)} places, and what is computed of them, take "
            f"{need / 1e9:.1f} GB, and {have / 1e9:.1f} GB of memory are available",
            "Give fewer samples, evaluation.quality.views or evaluation.quality.places, or some of evaluation.blocks",
        )
