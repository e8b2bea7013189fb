"""The configuration of a run: every key, its unit, its default and what it accepts.

The models are frozen and refuse unknown keys, so a misspelt key is an error and never a silent
default. This module imports without torch: `onward check` and the launcher answer at once.
Defaults are those of the released code of "Blockwise Self-Supervised Learning at Scale" (its
`train.sh`), except where a key has no counterpart there. Loading lives in `config_loading`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline.units import check_cuts, network_units, split_units

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
DatasetName = Literal["fashion_mnist_10k", "fashion_mnist", "cifar10", "cifar100", "image_folder"]
NoiseKind = Literal["none", "all", "hw", "c", "c_legacy"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"


class Section(BaseModel):
    """Base of every section: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Link(Section):
    """How activations travel from one stage to the next."""

    kind: Literal["queue", "rpc"] = "queue"
    """`queue`: shared memory on one host. `rpc`: torch.distributed.rpc, any host."""
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Batches that may wait on one link before the sender blocks."""
    timeout: PositiveFloat = 300.0
    """Seconds that a stage waits for its neighbour before it gives up."""


class Train(Section):
    """How long to train."""

    epochs: PositiveInt = 300
    """Passes over the data set; the learning-rate schedule spans them."""
    max_steps: PositiveInt | None = None
    """Stop after this many steps (the schedule still spans `epochs`)."""


class Jitter(Section):
    """Colour jitter: each factor is drawn from `[1 - x, 1 + x]`, hue from `[-x, x]`."""

    p: Probability = 0.8
    brightness: NonNegative = 0.4
    contrast: NonNegative = 0.4
    saturation: NonNegative = 0.2
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1


class Augment(Section):
    """The released two-view augmentation; lists hold one value per view."""

    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Share of the image area that a crop covers."""
    flip_p: Probability = 0.5
    jitter: Jitter = Jitter()
    gray_p: Probability = 0.2
    blur_p: tuple[Probability, Probability] = (1.0, 0.1)
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0)
    """Radius of PIL's Gaussian blur, in pixels."""
    solarize_p: tuple[Probability, Probability] = (0.0, 0.2)

    @field_validator("crop_scale", "blur_sigma")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"got {list(value)}, with the first above the second. Give [{value[1]}, {value[0]}]")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _share(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1.0:
            raise ValueError(f"got {list(value)}, and a crop covers at most the whole image. Give values up to 1.0")
        return value


class Data(Section):
    """What is trained on."""

    name: DatasetName = "fashion_mnist_10k"
    root: str | None = None
    """Folder of the data set; `fashion_mnist_10k` ships with the package and needs none."""
    batch_size: Annotated[int, Field(ge=2)] = 2048
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


class Model(Section):
    """The backbone, and where it is cut into blocks."""

    backbone: BackboneName = "resnet50"
    width: Annotated[int, Field(ge=4)] = 64
    """Channels of the first stage; 64 is torchvision's network, less is a narrower one."""
    stem: Literal["imagenet", "cifar", "strided"] = "imagenet"
    """`imagenet`: 7x7 stride 2 and max pooling. `cifar`: 3x3 stride 1. `strided`: 3x3 stride 2."""
    zero_init_residual: bool = True
    cuts: tuple[str, ...] = ("layer1", "layer2", "layer3")
    """Modules after which the network is cut: `stem`, `layerN` or one residual unit, `layerN.M`."""

    @field_validator("cuts")
    @classmethod
    def _cuts_form_a_chain(cls, cuts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "backbone" not in info.data:
            return cuts  # the backbone is wrong, and that is the error to report
        check_cuts(info.data["backbone"], cuts)
        return cuts

    def units(self) -> list[str]:
        """Names of the pieces that are never cut, in order: the stem, then every residual unit."""
        return network_units(self.backbone)

    def blocks(self) -> list[list[str]]:
        """The units of each block, in order."""
        return split_units(self.backbone, self.cuts)


class Head(Section):
    """What turns a block's output into the embedding that its loss sees; thrown away after training."""

    kind: Literal["expansion"] = "expansion"
    """`expansion`: convolution, batch norm, ReLU, global average pooling (CbE + GSP)."""
    width: PositiveInt = 2048
    """Output channels of the expansion convolution."""
    filter: Literal[1, 3] = 1
    """Side of the expansion convolution, in pixels."""
    projector: tuple[PositiveInt, ...] = Field(default=(8192, 8192, 8192), min_length=1)
    """Widths of the projector's layers."""


class Objective(Section):
    """The loss of a block."""

    kind: Literal["barlow_twins"] = "barlow_twins"
    lambd: NonNegative = 0.0051
    """Weight of the off-diagonal terms."""
    scale: PositiveFloat = 0.024
    """Factor on the whole loss (`--scale-loss` of the released code)."""
    reference_world_size: PositiveInt = 1
    """Divide the gradient by this: the released code's all-reduce is not differentiated, so its
    gradient is the true one divided by the number of ranks (16 in the paper's command)."""


class Noise(Section):
    """Noise added to a block's output while training."""

    kind: NoiseKind = "all"
    """What one standard deviation is taken over: `all`, `hw` (per sample and channel), `c` (over
    channels), `c_legacy` (over height, as the released code's `c` does)."""
    std: NonNegative = 0.25
    """Relative to the standard deviation of the activations."""


class Optimizer(Section):
    """How a block's parameters move; the learning rate is a function of the step."""

    kind: Literal["lars"] = "lars"
    lr: PositiveFloat = 0.2
    """For a batch of 256; multiplied by `batch_size / 256` when `scale_lr` is set."""
    scale_lr: bool = True
    weight_decay: NonNegative = 1e-6
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    eta: PositiveFloat = 0.001
    """LARS trust coefficient."""
    warmup_epochs: NonNegative = 10
    """Linear warm-up, step by step, from zero."""
    final_ratio: Probability = 0.001
    """The cosine ends at this share of the learning rate."""


class StageOverrides(Section):
    """What one stage does differently; partial sections are merged over the common ones."""

    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] | None = None
    head: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    noise: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}


class Metrics(Section):
    """The Prometheus endpoint of the coordinator."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes a free port; the address is printed and kept in `coordinator.json`."""


class Evaluation(Section):
    """What is measured when training has ended."""

    linear_probe: bool = True
    """Fit a linear classifier on every block of the trained and of the same untrained network."""
    batch_size: PositiveInt = 500


class Config(Section):
    """One run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    run_dir: str | None = None
    """Where everything the run writes goes; `runs/NAME-DATE-TIME` if not given."""
    runtime: Literal["pipelined", "serial"] = "pipelined"
    mode: Literal["simultaneous"] = "simultaneous"
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"
    """`auto`: one GPU a stage where there are enough, else the CPU. `cuda`: stage k on GPU k-1."""
    threads: PositiveInt = 1
    """CPU threads of one stage; part of what makes two runs equal to the bit."""
    restart: Literal["none"] = "none"
    link: Link = Link()
    train: Train = Train()
    data: Data = Data()
    model: Model = Model()
    head: Head = Head()
    objective: Objective = Objective()
    noise: Noise = Noise()
    optimizer: Optimizer = Optimizer()
    stages: dict[int, StageOverrides] = {}
    metrics: Metrics = Metrics()
    evaluation: Evaluation = Evaluation()

    @property
    def num_stages(self) -> int:
        """One stage a block."""
        return len(self.model.cuts) + 1

    def stage(self, index: int) -> StageConfig:
        """The settings of stage `index`, counted from 1, with its overrides merged in."""
        overrides = self.stages.get(index, StageOverrides())
        return StageConfig(
            index=index,
            units=tuple(self.model.blocks()[index - 1]),
            device=overrides.device or self.device,
            head=_merge(self.head, overrides.head),
            objective=_merge(self.objective, overrides.objective),
            noise=_merge(self.noise, overrides.noise),
            optimizer=_merge(self.optimizer, overrides.optimizer),
        )


class StageConfig(Section):
    """One stage's share of the configuration, overrides merged."""

    index: PositiveInt
    units: tuple[str, ...]
    device: str
    head: Head
    objective: Objective
    noise: Noise
    optimizer: Optimizer


SectionT = TypeVar("SectionT", bound=Section)


def _merge(common: SectionT, overrides: dict[str, Any]) -> SectionT:
    merged = {**common.model_dump(mode="json"), **overrides}
    return type(common).model_validate_json(json.dumps(merged))
