"""`onward.load`: what a run has learned, as columns of numbers, a plain module of PyTorch, and features of images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from launch.commands.evaluation_reader import split_name
from launch.prepare.run_dir import read_config
from launch.results.printing import command_console
from onward import objects
from onward.config import Config
from onward.results import evaluate, evaluation_texts
from onward.run import Run
from pipeline.backbones import build_block
from pipeline.data.augment.evaluation_view import evaluation_view
from pipeline.data.augment.normalize import Normalize
from pipeline.data.sets.datasets import ImageDataset, open_dataset
from pipeline.errors import UserError
from pipeline.validation.trust import check_trust
from workers.evaluating.checkpoints import load_blocks
from workers.observing.history_file import each_step
from workers.observing.trackers.base import flatten
from workers.run.compute import settings_kept
from workers.run.files import RunDir, read_report

if TYPE_CHECKING:
    from pipeline.evaluation.document import EvaluationResults

BATCH = 256
"""Images that `features` takes through the network together."""


@dataclass(frozen=True)
class Transform:
    """From an image to the input of the network, as in an evaluation: resized, cropped at the centre, normalised.

    Args:
        size: side of the input, in pixels.
        mean, std: of each colour channel, of pixels scaled to 0 to 1.
        interpolation: how images of another size are resized; their short side becomes 256/224 of `size`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]

    def __call__(self, image: object) -> Tensor:
        """`[3, size, size]` of an image: PIL's, or uint8 `[H, W]` gray or `[H, W, 3]`; raises `UserError` otherwise."""
        if not isinstance(image, Image.Image):
            image = Image.fromarray(_pixels(image))
        picture = image if image.mode in ("L", "RGB") else image.convert("RGB")
        pixels = torch.tensor(evaluation_view(picture, self.size, self.interpolation))
        return Normalize(self.mean, self.std)(pixels)


class TransformedImages(Dataset[tuple[Tensor, int]]):
    """Images of a run with their classes, for `torch.utils.data.DataLoader`.

    Args:
        images: of the run's data set.
        transform: makes the input of the network.
    """

    def __init__(self, images: ImageDataset, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """`[3, S, S]` and the class, counted from 0, or -1; raises `UserError` if the image cannot be decoded."""
        return self.transform(self.images.image(index)), self.images.label(index)


class Trained:
    """A run, as far as it was trained; see `load`.

    Args:
        run: its directory.
        config: of the run.
        checkpoint: steps of the snapshot whose weights are meant; None for the trained network.
        device: that the network computes on.
        given: Python objects that it was trained with.
    """

    def __init__(self, run: RunDir, config: Config, checkpoint: int | None, device: str, given: objects.Given) -> None:
        self.path, self.config, self.checkpoint = run.path, config, checkpoint
        self._run, self._device, self._given = run, torch.device(device), given

    @cached_property
    def columns(self) -> dict[str, list[float]]:
        """Everything in `metrics.jsonl`, one number a step: `step`, `epoch`, `time`, `images_per_second`,
        `stage_2/loss`, `stage_2/loss/TERM`, `stage_2/busy` and so on; NaN where there is none.

        Raises:
            UserError: no step of the run has ended, or the file is damaged.
        """
        rows = [{"step": float(line["step"]), "time": line["time"], **flatten(line)} for line in self._lines()]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name, math.nan) for row in rows] for name in names}

    @property
    def metrics(self) -> Any:
        """`columns` as a `pandas.DataFrame` if pandas is installed, otherwise as they are."""
        with suppress(ImportError):
            import pandas as pd

            return pd.DataFrame(self.columns).astype({"step": int, "epoch": int})
        return self.columns

    @property
    def report(self) -> Mapping[str, Any]:
        """`report.json`: accuracies before and after training, shares of time; empty before the run has ended."""
        return read_report(self._run) or {}

    @property
    def transform(self) -> Transform:
        """How an image becomes an input of `backbone`."""
        data = self.config.data
        return Transform(data.image_size, data.mean, data.std, data.eval_interpolation)

    def dataset(self, split: Literal["train", "test"] = "train") -> TransformedImages:
        """The run's images, transformed, with their classes; raises `UserError` where the data are not there."""
        with objects.for_run(self.config, self._given, self.path):
            return TransformedImages(open_dataset(self.config.data, split), self.transform)

    def evaluate(
        self, overrides: Mapping[str, object] | None = None, progress: bool | None = False, **keywords: object
    ) -> EvaluationResults:
        """Measure every block, as `onward.evaluate`; of the snapshot, where one was loaded."""
        if self.checkpoint is not None:
            overrides = {"checkpoint": self.checkpoint, **(overrides or {})}
        if not self._given:
            return evaluate(self.path, overrides=overrides, progress=progress, keywords=keywords)
        from launch.commands.evaluate import evaluate_run
        from pipeline.evaluation.document import EvaluationResults

        with objects.for_run(self.config, self._given, self.path), settings_kept():
            evaluate_run(self.path, evaluation_texts(overrides, keywords), console=command_console(quiet=not progress))
        return EvaluationResults.read(self.path / "evaluation.json", self.path)

    def backbone(self, block: int | None = None) -> nn.Sequential:
        """The blocks up to `block` as a module in evaluation mode, in float32, new at every call.

        A `torch.nn.Sequential` of one module a block: `backbone[-1]` is the last one. It takes images
        `[B, 3, S, S]` as `transform` makes them and returns a map `[B, C, H, W]`, or tokens `[B, N, D]`. All parameters
        can be trained; nothing of Onward runs in it.

        Args:
            block: counted from 1; all blocks if not given.

        Raises:
            UserError: there is no such block, or no weights.
        """
        count = self.config.num_stages
        if block is not None and (type(block) is not int or not 1 <= block <= count):
            raise UserError(f"block: the network of '{self.path}' has no block {block!r}. Give 1 to {count}")
        return nn.Sequential(*map(deepcopy, self._blocks[:block])).eval()

    @torch.no_grad()
    def features(self, images: Iterable[object] | Tensor, block: int | None = None) -> Tensor:
        """The trunk features of images: the block's output, averaged over positions or tokens.

        Args:
            images: PIL's, or arrays, as `transform` takes them; or a tensor of transformed ones, `[B, 3, S, S]`.
            block: as `backbone`.

        Returns:
            float32 `[B, D]`, on the CPU.

        Raises:
            UserError: an image, or the number of the block, is none.
        """
        backbone = self.backbone(block)
        if isinstance(images, Tensor) and images.is_floating_point():
            batches: Iterator[Tensor] = iter(torch.split(images, BATCH))
        else:
            batches = (torch.stack([*map(self.transform, some)]) for some in _batches(images))
        found = []
        for batch in batches:
            output = backbone(batch.to(self._device))
            found.append(output.mean(dim=(2, 3) if output.dim() == 4 else 1).float().cpu())
        if not found:
            raise UserError("images: there are none. Give at least one")
        return torch.cat(found)

    def __repr__(self) -> str:
        steps = "" if self.checkpoint is None else f" after {self.checkpoint} steps"
        return f"<onward.Trained {self.path}{steps}: {self.config.model.backbone}, {self.config.num_stages} blocks>"

    def _lines(self) -> list[dict[str, Any]]:
        return list(each_step(self._run.metrics, []))

    @cached_property
    def _blocks(self) -> list[nn.Module]:
        config = self.config.plain()
        with objects.for_run(config, self._given, self.path):
            blocks = [build_block(config, index) for index in range(1, config.num_stages + 1)]
        load_blocks(self._run, blocks, self.checkpoint, lambda note: None)
        return [block.to(self._device) for block in blocks]


def load(
    run: str | os.PathLike[str] | Run,
    *,
    checkpoint: int | None = None,
    device: str = "cpu",
    network: object | None = None,
    loss: object | None = None,
    data: object | None = None,
    trust: bool = False,
) -> Trained:
    """What a run has learned; nothing is computed before it is asked for.

    Args:
        run: its directory, `RUN@STEPS` for a snapshot, or a run that has ended.
        checkpoint: steps of the snapshot whose weights are meant; the trained network's if not given.
        device: that the network computes on: `cpu`, `cuda`, `cuda:1`.
        network, loss, data: what the run was trained with, where that was a Python object and is needed: the network by
            `backbone` and `features`, all of them by `evaluate`. A `Run` of this program has them.
        trust: as `--trust`: import and call what the configuration names, although it is another user's file.

    Raises:
        UserError: there is no run, its configuration names functions and belongs to another user, or an object is given
            that it was not trained with.
    """
    path, steps = (run.path, None) if isinstance(run, Run) else split_name(os.fspath(run))
    config = read_config(path)
    owner = os.stat(RunDir(path).config).st_uid
    if not trust:
        check_trust(config, RunDir(path).config, owner)
    given = {"network": network, "loss": loss, "data": data}
    known = {**(run.given if isinstance(run, Run) else {}), **{k: v for k, v in given.items() if v is not None}}
    with objects.for_run(config, known, path):
        pass  # it raises where an object does not belong
    return Trained(RunDir(path), Config.of(config), steps if checkpoint is None else checkpoint, device, known)


def _batches(images: Iterable[object]) -> Iterator[list[object]]:
    rest = iter(images)
    while some := list(islice(rest, BATCH)):
        yield some


def _pixels(image: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 `[H, W]` or `[H, W, 3]`, of a tensor or an array of that form."""
    array = np.asarray(image.cpu() if isinstance(image, Tensor) else image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)):
        raise UserError(
            f"images: got {array.dtype} of shape {list(array.shape)} for one image. Give an image of PIL, uint8 [H, W] "
            "or [H, W, 3]; or all of them as one floating-point tensor [B, 3, S, S], as `transform` makes them"
        )
    return np.ascontiguousarray(array)
