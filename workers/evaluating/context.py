"""What a measure is given: the network, the images, their features, and a way to report progress."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config import Config, DataConfig, EvaluationConfig
from pipeline.config.places import Feature, Place
from pipeline.data.augment.evaluation_view import evaluation_view
from pipeline.data.sets.datasets import ImageDataset, Split, open_dataset
from pipeline.errors import ConfigError
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.features import embed, places_of
from pipeline.stage.stage import Stage
from workers.evaluating.augmented_batches import augmented_batches
from workers.evaluating.extraction import Batch, Load, Transform
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.finite_features import check_finite
from workers.evaluating.labelled_images import Progress


@dataclass
class Context:
    """One network and one labelled data set.

    Args:
        config: of the run, with the evaluation's settings laid over it.
        stages: the whole network, loaded, in evaluation mode, on `device`.
        device: that it computes on; results of measures are computed there or on the CPU.
        run: the run directory.
        source: makes features, or reads those of an earlier evaluation.
        data: which data set, and how its images are resized and normalised.
        data_name: the data set in records.
        progress: called with what is being done, how much of it is done, and how much there is in all.
        note: called with a sentence for the user.

    Attributes:
        spectra: eigenvalues for the document, by `Place.key`; a measure adds its own.
        corruptions: likewise, the settings of the corruption benchmark, beside its errors.
        tested: likewise, on how many images each other data set was tested.
    """

    config: Config
    stages: Sequence[Stage]
    device: torch.device
    run: Path
    source: FeatureSource
    _: KW_ONLY
    data: DataConfig
    data_name: str
    progress: Progress = lambda text, done, total: None
    note: Callable[[str], None] = lambda text: None
    spectra: dict[str, list[float]] = field(default_factory=dict)
    corruptions: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> EvaluationConfig:
        """What is to be measured."""
        return self.config.evaluation

    @property
    def places(self) -> tuple[Place, ...]:
        """Where classifiers are fitted: `evaluation.places` of `evaluation.blocks`."""
        return self.places_of(self.settings.places)

    def places_of(self, features: Iterable[Feature]) -> tuple[Place, ...]:
        """These features of `evaluation.blocks`; blocks without a head have a trunk only."""
        return places_of(self.stages, features, self.settings.blocks)

    @cached_property
    def trained_images(self) -> ImageDataset:
        """What the run was trained on, with labels or without; raises `UserError` if it cannot be read."""
        return open_dataset(self.data, "train")

    @cached_property
    def train_images(self) -> ImageDataset:
        """What classifiers are fitted on; raises `UserError` if the images have no labels or cannot be read."""
        return self.source.images(self.data, "train", self.progress)

    @cached_property
    def test_images(self) -> ImageDataset:
        """What classifiers are tested on; raises `UserError` if there is no such part, or without labels."""
        return self.source.images(self.data, "test", self.progress)

    @property
    def classes(self) -> int:
        """Of the labelled training images; raises as `train_images`."""
        return self.train_images.num_classes

    @cached_property
    def train(self) -> FeatureSet:
        """Features of `train_images` at `places`; raises `UserError` also if they are not finite."""
        return self._features("train", self.train_images)

    @cached_property
    def test(self) -> FeatureSet:
        """Features of `test_images` at `places`; raises `UserError` also if they are not finite."""
        return self._features("test", self.test_images)

    def features_of(
        self, images: ImageDataset, transform: Transform | None = None, places: Collection[Place] | None = None
    ) -> FeatureSet:
        """Features of any images, of the view that evaluation takes of them; nothing is kept on disk.

        Args:
            images: `[N]`.
            transform: from the view of an image, uint8 `[S, S, 3]`, and its number to another such view.
            places: `self.places` if not given.

        Raises:
            UserError: an image cannot be read, or features are not finite.
        """
        return self.source.make(images, self.data, places or self.places, transform, self.progress)

    def embed(self, images: Tensor | NDArray[np.uint8], places: Collection[Place]) -> dict[Place, Tensor]:
        """One batch through the network: bytes `[B, S, S, 3]` to float32 `[B, D]` at each place, on `device`.

        Raises `UserError` if they are not finite.
        """
        pixels = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        embeddings = embed(self.stages, pixels.to(self.device), places)
        check_finite(embeddings)
        return embeddings

    def embedded(
        self, batches: Sequence[Batch], load: Load, places: Collection[Place]
    ) -> Iterator[dict[Place, Tensor]]:
        """Many batches through the network, in order; several are made at the same time, in threads.

        Args:
            batches: which images make up each batch.
            load: makes the pixels of a batch, uint8 `[B, S, S, 3]`; called in threads, for several batches at once.
            places: where embeddings are taken.

        Returns:
            For each batch float32 `[B, D]` at each place, on the CPU.

        Raises:
            UserError: what `load` raises, or embeddings that are not finite.
        """
        for _, embeddings in self.source.extractor.run(batches, load, places):
            check_finite(embeddings)
            yield embeddings

    def view(self, image: Image.Image) -> NDArray[np.uint8]:
        """The view of an image that is evaluated: uint8 `[S, S, 3]`."""
        return evaluation_view(image, self.data.image_size, self.data.eval_interpolation)

    def augmented_epoch(
        self, epoch: int, batch_size: int | None = None, places: Collection[Place] | None = None
    ) -> Iterator[tuple[dict[Place, Tensor], Tensor]]:
        """The features of augmented training images, in a new order: crops and flips, as the papers' probes see them.

        Keyed by (`evaluation.seed`, epoch, image), so it is the same every time.

        Args:
            epoch: counted from 0.
            batch_size: images per batch, the last may be smaller; `evaluation.batch_size` if not given.
            places: `self.places` if not given.

        Returns:
            For each batch the features, float32 `[B, D]` on the CPU, and the labels, int64 `[B]`.

        Raises:
            UserError: as `train_images`, or features are not finite.
        """
        size, chosen = batch_size or self.settings.batch_size, tuple(places or self.places)
        return augmented_batches(
            self.source.extractor, self.train_images, self.data, self.settings.seed, epoch, size, chosen
        )

    def on(self, data: DataConfig, name: str) -> Context:
        """The same network, on another data set.

        Args:
            data: which, at which `image_size` and interpolation. Its images are normalised as the run's own.
            name: of the data set in records.
        """
        return Context(
            self.config,
            self.stages,
            self.device,
            self.run,
            self.source,
            data=data,
            data_name=name,
            progress=self.progress,
            note=self.note,
        )

    def readable(self, images: ImageDataset, description: str) -> ImageDataset:
        """Without those that cannot be decoded, if `data.on_error` is skip; messages call them by the description."""
        return self.source.labelled.readable(images, self.data, description, self.progress)

    def check_blocks(self) -> None:
        """Raises `ConfigError` if `evaluation.blocks` names one that the network does not have."""
        for number, block in enumerate(self.settings.blocks):
            if block > len(self.stages):
                problem = f"there is no block {block}"
                raise ConfigError(f"evaluation.blocks.{number}", problem, f"Blocks are 1 to {len(self.stages)}")

    def _features(self, split: Split, images: ImageDataset) -> FeatureSet:
        return self.source.get(split, images, self.data, self.places, self.progress)
