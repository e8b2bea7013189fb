"""`data`: what is trained on, and how views are made of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config.base import Finite, NonNegative, PerView, PositiveFloat, Section

DatasetName = Literal["fashion_mnist_10k", "fashion_mnist", "cifar10", "cifar100", "image_folder"]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"got {list(value)}, with the first above the second. Give [{value[1]}, {value[0]}]")
    return value


def _share(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1.0:
        raise ValueError(f"got {list(value)}, and a crop covers at most the whole image. Give values up to 1.0")
    return value


class Jitter(Section):
    """Colour jitter: each factor is drawn from `[1 - x, 1 + x]`, hue from `[-x, x]`."""

    p: PerView = (0.8, 0.8)
    brightness: NonNegative = 0.4
    contrast: NonNegative = 0.4
    saturation: NonNegative = 0.2
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1


class Augment(Section):
    """The released two-view augmentation; a probability is one number for both views or a list of two."""

    crop_p: PerView = (1.0, 1.0)
    """Without a crop the whole image is resized."""
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Share of the image area that a crop covers."""
    flip_p: PerView = (0.5, 0.5)
    jitter: Jitter = Jitter()
    gray_p: PerView = (0.2, 0.2)
    blur_p: PerView = (1.0, 0.1)
    blur_kind: Literal["pil", "kernel"] = "pil"
    """`pil`: PIL's Gaussian blur, as released. `kernel`: a sampled Gaussian of `blur_kernel` pixels (SimCLR, BYOL)."""
    blur_kernel: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Side of the kernel as a share of `image_size`, made odd; for `blur_kind: kernel`."""
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels."""
    solarize_p: PerView = (0.0, 0.2)
    noise_std: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """Gaussian noise on the pixels of each view, in units of the full range from black to white."""
    patch_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 0.1)
    """Share of the image area that the negative patch covers (`objective.negatives: single_patch`)."""

    @field_validator("crop_scale", "blur_sigma", "patch_scale")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        return _ordered(value)

    @field_validator("crop_scale", "patch_scale")
    @classmethod
    def _at_most_everything(cls, value: tuple[float, float]) -> tuple[float, float]:
        return _share(value)


class Data(Section):
    """What is trained on."""

    name: DatasetName = "fashion_mnist_10k"
    root: str | None = None
    """Folder of the data set; `fashion_mnist_10k` ships with the package and needs none."""
    batch_size: Annotated[int, Field(ge=1)] = 2048
    """Images a step. The loss and batch norm see the whole batch."""
    image_size: Annotated[int, Field(ge=8)] = 224
    """Side of the square crops, in pixels."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that augment; 0 augments in the coordinator. The batches are the same bits for any number."""
    drop_last: bool = True
    """Drop the last, smaller batch of an epoch."""
    download: bool = False
    """Let torchvision download the data set into `root` if it is not there."""
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    augment: Augment = Augment()
    eval_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are resized for evaluation: bilinear as released, bicubic in the BYOL report."""
