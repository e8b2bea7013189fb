"""Features of whole data sets: kept by an earlier evaluation, or computed in one pass."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config, DataConfig
from pipeline.config.places import Place
from pipeline.data.sets.datasets import ImageDataset, Split
from pipeline.data.sets.index import fingerprint
from pipeline.errors import UserError
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.stage.stage import Stage
from workers.evaluating.extraction import Batch, Extractor, Load, Transform, evaluation_load, whole_batches
from workers.evaluating.feature_cache import Entry, Written, network_digest, read_features
from workers.evaluating.feature_rows import Rows
from workers.evaluating.labelled_images import LabelledImages, Progress
from workers.evaluating.ranks import Ranks

PACKAGES = ("torch", "torchvision", "onward")


class FeatureSource:
    """Gives the features of one network.

    Args:
        config: of the run, with the evaluation's settings.
        stages: the network, in evaluation mode, on `device`.
        device: that it computes on.
        root: folder for the features that are kept, and for those that several processes exchange; None keeps none.
        note: called with a sentence for the user.
        ranks: the processes that share the work of `get`, until it is set to None.
        labelled: opens the images; shared by all sources of one run, so that each file is checked once.
    """

    def __init__(
        self,
        config: Config,
        stages: Sequence[Stage],
        device: torch.device,
        root: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
        ranks: Ranks | None = None,
        labelled: LabelledImages | None = None,
    ) -> None:
        self.config, self.stages, self.device = config, stages, device
        self.labelled = LabelledImages(note) if labelled is None else labelled
        self._root, self._note, self.ranks = root, note, ranks
        self._keeps = root is not None and config.evaluation.cache
        self.extractor = Extractor(config, stages, device, ranks.group.local_world_size if ranks else 1)
        self._in_memory: dict[str, dict[Place, Tensor]] = {}

    def images(self, data: DataConfig, split: Split, progress: Progress) -> ImageDataset:
        """The images that classifiers are fitted or tested on; raises as `LabelledImages.open`."""
        return self.labelled.open(data, split, progress, self.ranks)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the network."""
        return network_digest(self.stages)

    def get(
        self, split: Split, images: ImageDataset, data: DataConfig, places: Collection[Place], progress: Progress
    ) -> FeatureSet:
        """Features of a part of a data set; those that are not on disk are computed, and kept if `evaluation.cache`.

        Where several processes share the work all of them must ask for the same, in the same order; only rank 0 is
        given the features.

        Raises:
            UserError: an image cannot be read, features are not finite, or the disk fails.
            TrainingError: another process does not answer.
        """
        entry = self._entry(split, images, data)
        available = self._in_memory.setdefault(entry.folder.name, {})
        leads = self.ranks is None or self.ranks.leads
        if leads and self._keeps:
            available |= entry.read(place for place in places if place not in available)
        missing = [place for place in places if place not in available]
        if self.ranks is not None:
            missing = list(self.ranks.agree(missing if leads else None, places))
        if missing:
            load = evaluation_load(images, data)
            text = f"features of the {split} images"
            available |= (self._made if self.ranks is None else self._shared)(entry, load, missing, text, progress)
        return FeatureSet({place: available[place] for place in places if place in available}, _labels(images))

    def make(
        self,
        images: ImageDataset,
        data: DataConfig,
        places: Collection[Place],
        transform: Transform | None,
        progress: Progress,
    ) -> FeatureSet:
        """Features of any images, in memory; raises as `get`."""
        with Rows(len(images), None) as rows:
            load = evaluation_load(images, data, transform)
            self._fill(rows, self._batches(len(images)), load, places, "features", progress)
            return FeatureSet(rows.finish()[0], _labels(images))

    def _made(
        self, entry: Entry, load: Load, places: list[Place], text: str, progress: Progress
    ) -> dict[Place, Tensor]:
        """By this process alone."""
        with Rows(entry.images, entry.folder if self._keeps else None, self._note) as rows:
            self._fill(rows, self._batches(entry.images), load, places, text, progress)
            return self._kept(entry, *rows.finish())

    def _shared(
        self, entry: Entry, load: Load, places: list[Place], text: str, progress: Progress
    ) -> dict[Place, Tensor]:
        """By all processes; rank 0 joins their parts, and the others get nothing."""
        assert self.ranks is not None
        ranks, parts = self.ranks, entry.folder.with_suffix(".parts")
        if not ranks.leads:
            try:
                ranks.done(self._part(entry.images, parts, load, places, text, lambda *how_far: None))
            except UserError as error:
                ranks.failed(error)
                raise
            return {}
        try:
            own_files = self._part(entry.images, parts, load, places, text, progress)
            with Rows(entry.images, entry.folder if self._keeps else None, self._note) as rows:
                for rank in range(ranks.group.world_size):
                    files = ranks.files_of(rank, places) if rank else own_files
                    for batch in self._read_part(entry.images, parts, rank, files):
                        rows.add(batch)
                return self._kept(entry, *rows.finish())
        finally:
            shutil.rmtree(parts, ignore_errors=True)

    def _part(
        self, images: int, parts: Path, load: Load, places: list[Place], text: str, progress: Progress
    ) -> dict[Place, Written]:
        assert self.ranks is not None
        batches = self.ranks.share(self._batches(images))
        count = sum(map(len, batches))
        if not count:
            return {place: Written(0, "0" * 64, 1) for place in places}

        def cannot(problem: str) -> None:
            raise UserError(f"{problem}. Several processes hand features over through files: make room, or use one")

        with Rows(count, parts / str(self.ranks.group.rank), cannot) as rows:
            self._fill(rows, batches, load, places, text, progress)
            return rows.finish()[1]

    def _read_part(self, images: int, parts: Path, rank: int, files: dict[Place, Written]) -> list[dict[Place, Tensor]]:
        assert self.ranks is not None
        count = sum(map(len, self.ranks.share(self._batches(images), rank)))
        if not count:
            return []
        folder = parts / str(rank)
        whole = {place: read_features(folder / f"{place.key}.safetensors", files[place], count) for place in files}
        step = self.config.evaluation.batch_size
        return [{place: part[at : at + step] for place, part in whole.items()} for at in range(0, count, step)]

    def _kept(self, entry: Entry, memory: dict[Place, Tensor], files: dict[Place, Written]) -> dict[Place, Tensor]:
        """The features that `Rows.finish` returned; its files are listed in the index of the entry."""
        if not files:
            return memory
        try:
            entry.add(files)
        except OSError as error:
            self._note(f"features are not kept: '{entry.folder}' cannot be written ({error.strerror or error})")
        return {place: read_features(entry.path(place), written, entry.images) for place, written in files.items()}

    def _fill(
        self, rows: Rows, batches: Sequence[Batch], load: Load, places: Collection[Place], text: str, progress: Progress
    ) -> None:
        done, count = 0, sum(map(len, batches))
        for batch, features in self.extractor.run(batches, load, places):
            rows.add(features)
            done += len(batch)
            progress(text, done, count)

    def _batches(self, images: int) -> list[Batch]:
        return whole_batches(images, self.config.evaluation.batch_size)

    def _entry(self, split: Split, images: ImageDataset, data: DataConfig) -> Entry:
        config = self.config
        stages = [config.stage(stage.index) for stage in self.stages]
        inputs: dict[str, Any] = {
            "network": self.digest,
            "model": config.model.model_dump(mode="json"),
            "heads": [stage.head.model_dump(mode="json") for stage in stages],
            "precision": [stage.precision.model_dump(mode="json") for stage in stages],
            "data": {"fingerprint": fingerprint(images), "split": split, "mean": list(config.data.mean),
                     "std": list(config.data.std), "image_size": data.image_size,
                     "interpolation": data.eval_interpolation},
            "batch_size": config.evaluation.batch_size,
            "threads": config.threads,
            "device": _device_name(self.device),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }  # fmt: skip
        return Entry(self._root or Path(), inputs, len(images), self._note)


def _labels(images: ImageDataset) -> Tensor:
    return torch.from_numpy(np.array(images.labels, np.int64))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
