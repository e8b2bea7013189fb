"""`evaluation`: measurements of the blocks: at the end of training, while it runs, and by `onward evaluate`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from pipeline.config.base import NonNegative, PositiveFloat, PositiveInt, Section
from pipeline.config.data import DatasetName
from pipeline.config.places import Feature

LinearProtocol = Literal["quick", "blockwise", "byol", "lidar"]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Severity = Annotated[int, Field(ge=1, le=5)]


def _corruptions(value: Any) -> Any:
    """Checked here, because for a union pydantic would name the first choice that failed and not the key."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if value in ("none", "standard", "all") or isinstance(value, tuple):
        return value
    raise ValueError(f"got {value!r}. Allowed: none, standard, all, or a list of names such as [fog, contrast]")


class KnnConfig(Section):
    """Weighted nearest neighbours, by cosine (Wu et al., arXiv 1805.01978)."""

    k: tuple[PositiveInt, ...] = (20, 200)
    """Numbers of neighbours, all measured in one pass; an empty list skips the measure."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote counts exp(cosine / temperature): the smaller, the more the nearest decide."""


class FewLabelsConfig(Section):
    """Classifiers fitted on a share of the labels, the same share of every class."""

    shares: tuple[Fraction, ...] = ()
    """Shares of the training images, such as 0.01 and 0.1; an empty list skips the measure."""
    unfrozen: bool = False
    """Also train the blocks below the classifier, from their trained weights."""
    epochs: PositiveInt = 20
    """Of the unfrozen fine-tuning, over the labelled images."""
    lr_backbone: PositiveFloat = 0.005
    """Learning rate of the blocks in the unfrozen fine-tuning, at its start; half a cosine takes it to 0."""
    lr_classifier: PositiveFloat = 0.5
    """Learning rate of the classifier in the unfrozen fine-tuning, likewise."""


class QualityConfig(Section):
    """Label-free quality measures of an embedding: LiDAR, RankMe, alpha-ReQ, collapse."""

    enabled: bool = True
    """False skips all of them."""
    samples: Annotated[int, Field(ge=2)] = 1000
    """Images of the training set, n of LiDAR: its surrogate classes."""
    views: Annotated[int, Field(ge=2)] = 10
    """Augmented views of each, q of LiDAR."""
    delta: NonNegative = 1e-4
    """Added to the diagonal of LiDAR's covariance within samples."""
    epsilon: NonNegative = 1e-8
    """Added to the normalised spectrum of LiDAR and RankMe."""
    ranks: tuple[PositiveInt, PositiveInt] = (6, 100)
    """First and last eigenvalue that alpha-ReQ fits its power law to, counted from 1; cut at the dimension."""
    places: tuple[Feature, ...] = ("trunk", "expansion", "projector")
    """Features of each block that are measured."""

    @field_validator("ranks")
    @classmethod
    def _in_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] >= value[1]:
            raise ValueError(f"got {list(value)}, and the first must be below the last. Give [6, 100]")
        return value


class CorruptionsConfig(Section):
    """Accuracy on corrupted test images (Hendrycks and Dietterich, arXiv 1903.12261)."""

    names: Annotated[Literal["none", "standard", "all"] | tuple[str, ...], BeforeValidator(_corruptions)] = "none"
    """`standard`: the 15 of the benchmark; `all`: also its four extra ones; or a list of names."""
    severities: tuple[Severity, ...] = (1, 2, 3, 4, 5)
    """Strengths that are measured, 1 the weakest and 5 the strongest."""
    folder: str | None = None
    """Folder of ImageNet-C or CIFAR-10-C; without one the corruptions are computed."""
    baseline: str | None = None
    """A run directory with an `evaluation.json`, which the mean corruption error is relative to."""


class TransferSetConfig(Section):
    """Another labelled data set for transfer tests of the frozen features; its keys are those of `data`."""

    name: DatasetName
    """One of the names that `data.name` takes."""
    root: str | None = None
    """Folder of the data set; `fashion_mnist_10k` ships with the package and needs none."""
    split: str | None = None
    """The part to fit on, under the data set's own name for it; its usual training part if not given."""
    download: bool = False
    """Let torchvision download the data set into `root` if it is not there."""


class OnlineConfig(Section):
    """Measurements while training; they do not change the trained weights by a bit."""

    linear: bool = False
    """Train a linear classifier for every block along with it, on detached features."""
    lr: PositiveFloat = 0.1
    """Learning rate of these classifiers."""
    knn_bank: Annotated[int, Field(ge=0)] = 0
    """Samples in the bank of the nearest-neighbour accuracy; 0 skips the measure."""
    knn_k: PositiveInt = 20
    """Number of neighbours."""
    quality_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two measurements of the label-free quality measures; 0 skips them."""
    quality_samples: PositiveInt = 1024
    """Samples that they are computed from."""


class EvaluationConfig(Section):
    """Which measures are taken of every block, and how."""

    linear_probe: bool = True
    """When training ends, fit a linear classifier on every block of the trained and of the same untrained network."""
    batch_size: PositiveInt = 500
    """Images that go through the network at once."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Threads that decode; 0: one per core. The features do not depend on the number."""
    places: tuple[Feature, ...] = ("trunk", "expansion")
    """Features of each block that classifiers are fitted on."""
    blocks: tuple[PositiveInt, ...] = ()
    """Blocks that are measured, counted from 1; all if empty."""
    checkpoint: PositiveInt | None = None
    """Measure the snapshot after this many steps; the trained network if not given."""
    cache: bool = True
    """Keep the features in the run directory, for the next evaluation of the same weights on the same data."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers of an evaluation."""
    linear: tuple[LinearProtocol, ...] = ("quick",)
    """Protocols of the linear probe: `quick` (L-BFGS for a fixed number of iterations), and those of the papers."""
    epochs: PositiveInt | None = None
    """Epochs of the linear probes and the MLP; their protocol's if not given."""
    augmented: bool = False
    """Fit the papers' probes on training images augmented anew in every epoch, instead of on one view of each."""
    mlp: bool = False
    """Also fit a classifier with one hidden layer."""
    knn: KnnConfig = KnnConfig()
    few_labels: FewLabelsConfig = FewLabelsConfig()
    quality: QualityConfig = QualityConfig()
    corruptions: CorruptionsConfig = CorruptionsConfig()
    transfer: tuple[TransferSetConfig, ...] = ()
    """Other data sets that classifiers are fitted and tested on; none if empty."""
    online: OnlineConfig = OnlineConfig()
    plots: bool = True
    """Draw the figures."""
