"""`data`: the data set, and how views are made of its images."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator

from pipeline.config.base import NAME_PATTERN, Finite, NonNegative, PerView, PositiveFloat, Probability, Section
from pipeline.errors import allowed_names

DatasetName = Literal[
    "fashion_mnist_10k", "fashion_mnist", "mnist", "kmnist", "emnist", "qmnist", "usps", "semeion", "svhn",
    "cifar10", "cifar100", "stl10", "eurosat", "gtsrb", "fer2013", "caltech101", "caltech256", "country211", "dtd",
    "fgvc_aircraft", "flowers102", "food101", "imagenette", "oxford_iiit_pet", "places365", "places365_small",
    "rendered_sst2", "stanford_cars", "sun397", "imagenet", "image_folder", "packed",
]  # fmt: skip
FOLDERS = ("image_folder", "imagenet")
"""Data sets that are folders of image files."""
Layout = Literal["auto", "splits", "classes"]


def _dataset_name(value: object) -> object:
    if isinstance(value, str) and (value in get_args(DatasetName) or re.match(NAME_PATTERN, value)):
        return value
    raise ValueError(
        f"unknown value {value!r}. {allowed_names(str(value), [*get_args(DatasetName), 'PACKAGE.MODULE:NAME'])}"
    )


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"got {list(value)}, with the first above the second. Give [{value[1]}, {value[0]}]")
    return value


def _at_most_one(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1.0:
        raise ValueError(f"got {list(value)}, and a crop covers at most the whole image. Give values up to 1.0")
    return value


class JitterConfig(Section):
    """Colour jitter: each factor is drawn from `[1 - x, 1 + x]`, hue from `[-x, x]`."""

    p: PerView = (0.8, 0.8)
    """Probability that a view's colours are changed at all."""
    brightness: NonNegative = 0.4
    """Half width of the interval that the brightness factor is drawn from; 0 leaves the brightness alone."""
    contrast: NonNegative = 0.4
    """Half width of the interval that the contrast factor is drawn from; 0 leaves the contrast alone."""
    saturation: NonNegative = 0.2
    """Half width of the interval that the saturation factor is drawn from; 0 leaves the saturation alone."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest turn of the hue in either direction, as a share of the colour circle; 0 leaves the hue alone."""


class AugmentConfig(Section):
    """The released two-view augmentation; a probability is one number for both views or a list of two."""

    crop_p: PerView = (1.0, 1.0)
    """Probability that a view is a random crop; otherwise the whole image is resized."""
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Least and greatest share of the image area that a crop covers, up to 1."""
    flip_p: PerView = (0.5, 0.5)
    """Probability that a view is mirrored, left to right."""
    jitter: JitterConfig = JitterConfig()
    gray_p: PerView = (0.2, 0.2)
    """Probability that a view loses its colours."""
    blur_p: PerView = (1.0, 0.1)
    """Probability that a view is blurred: view 1 always and view 2 rarely, as released."""
    blur_kind: Literal["pil", "kernel"] = "pil"
    """`pil`: PIL's Gaussian blur, as released. `kernel`: a sampled Gaussian of `blur_kernel` pixels (SimCLR, BYOL)."""
    blur_kernel: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Side of the kernel as a share of `image_size`, made odd; for `blur_kind: kernel`."""
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0)
    """Least and greatest standard deviation of the blur, in pixels."""
    solarize_p: PerView = (0.0, 0.2)
    """Probability that the bright half of a view's levels is inverted: only in view 2, as released."""
    noise_std: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """Gaussian noise on the pixels of each view, in units of the full range from black to white."""
    patch_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 0.1)
    """Least and greatest share of the image area that the negative patch covers; for `objective.negatives:
    single_patch`."""

    @field_validator("crop_scale", "blur_sigma", "patch_scale")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        return _ordered(value)

    @field_validator("crop_scale", "patch_scale")
    @classmethod
    def _at_most_everything(cls, value: tuple[float, float]) -> tuple[float, float]:
        return _at_most_one(value)


class CropsConfig(Section):
    """Views of one kind, for runs that compare more than two, or of several sizes (`data.views`).

    Keys that are not set have the value of `data.augment`, where the first number of a pair is for the first view and
    the second for all others.
    """

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of views of this kind."""
    size: Annotated[int, Field(ge=8)] | None = None
    """Side in pixels; `data.image_size` if not given."""
    crop_scale: tuple[PositiveFloat, PositiveFloat] | None = None
    """Least and greatest share of the image area that a crop covers."""
    flip_p: Probability | None = None
    """Probability that a view is mirrored, left to right."""
    jitter_p: Probability | None = None
    """Probability that a view's colours are changed, by the factors of `data.augment.jitter`."""
    gray_p: Probability | None = None
    """Probability that a view loses its colours."""
    blur_p: Probability | None = None
    """Probability that a view is blurred."""
    solarize_p: Probability | None = None
    """Probability that the bright half of a view's levels is inverted."""
    noise_std: NonNegative | None = None
    """Standard deviation of the noise on the pixels, in units of the full range from black to white."""

    @field_validator("crop_scale")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if value is None else _at_most_one(_ordered(value))


class ProgressiveConfig(Section):
    """Resolution that grows during training, in steps of 32 pixels (or of 4, below 64): Leclerc et al., FFCV (2023)."""

    start_size: Annotated[int, Field(ge=8)]
    """Side of the views in the first epochs, in pixels."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Epoch at which the growth begins, counted from 0."""
    end_epoch: Annotated[int, Field(ge=1)]
    """Epoch from which on the views have `data.image_size` pixels per side, counted from 0."""


class DataConfig(Section):
    """The data set and its views."""

    name: Annotated[str, BeforeValidator(_dataset_name)] = "fashion_mnist_10k"
    """The data set: the embedded one, one of torchvision's, a folder of images, a packed copy of any of these, or your
    own, `PACKAGE.MODULE:NAME`: called with `train` or `test`, it returns a data set like PyTorch's."""
    root: str | None = None
    """Folder of the data set; `fashion_mnist_10k` ships with the package and needs none. Each host may have its own:
    variables of the environment are replaced (`$DATA/imagenet`)."""
    split: str | None = None
    """The part to train on, under the data set's own name for it, such as `unlabeled` of `stl10`; its usual training
    part if not given. The test part does not change."""
    layout: Layout = "auto"
    """How a folder of images is read. `splits`: `root/train/CLASS/...` and `root/val/CLASS/...`. `classes`: every
    folder in `root` is a class. `auto`: `splits` if there is a folder `train`; an error if both are possible."""
    batch_size: Annotated[int, Field(ge=1)] = 2048
    """Images per step. The loss and batch norm see the whole batch."""
    image_size: Annotated[int, Field(ge=8)] = 224
    """Side of the square crops, in pixels."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Worker processes of the data loader; 0 augments in the coordinator. Batches do not depend on the number."""
    drop_last: bool = True
    """Drop the last, smaller batch of an epoch."""
    views: tuple[CropsConfig, ...] = ()
    """The views that are compared, if not the two of `augment`. The first two are compared with each other and
    with every other one; those that are smaller (multi-crop) with these two only."""
    progressive: ProgressiveConfig | None = None
    """Train with smaller views at first."""
    augment_backend: Literal["fast", "pil"] = "fast"
    """`fast`: OpenCV and torch on bytes, within about one level of 255 of PIL. `pil`: bit-identical to the released
    code."""
    augment_on: Literal["auto", "workers", "device"] = "auto"
    """Where jitter, grayscale, blur and solarisation run. `workers`: where the images are cropped. `device`: in batches
    on the device of the first stage; experimental, as it was not measured on a GPU. `auto`: as `workers`."""
    feed: Literal["coordinator", "stages"] = "coordinator"
    """Where the data loader runs. `stages`: every process of stage 1 reads and augments its own part of the batch, on
    its own host; the coordinator then sends the indices of the images. Each host needs the data set."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do at an image that cannot be decoded: `fail` ends the run and names it; `skip` replaces it by another
    image, the same one after a restart."""
    scan_headers: bool = True
    """Read the header of every image file once before a run begins, so that files that are no images are named
    early."""
    in_memory: bool = False
    """Read all files once, undecoded, and keep them in memory that all data loader workers of a host share."""
    affinity: bool = True
    """Pin each data loader worker to one core, where the host has more cores than stages."""
    download: bool = False
    """Let torchvision download the data set into `root` if it is missing."""
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    """Subtracted from each colour channel, in units of the full range from black to white; ImageNet's if not given."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Divisor of each channel after that, in the same units; ImageNet's if not given."""
    augment: AugmentConfig = AugmentConfig()
    eval_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are resized for evaluation: bilinear as released, bicubic in the BYOL report."""
