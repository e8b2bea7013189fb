"""`onward replay RUN --stage K --step N`: computes one step of one stage again, and shows what happened in it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from launch.commands.verify import check_stage, config_here
from launch.prepare.data_index import check_data
from launch.prepare.placement import count_gpus, place
from launch.prepare.run_dir import read_config
from launch.results.printing import command_console
from launch.verifying.circumstances import edited
from launch.verifying.intervals import start_of_step
from launch.verifying.recorded import DIGESTED, digests_of, loss_of
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import UserError
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.replaying.modules import CallNumbers, ModuleNumbers
from workers.replaying.pictures import with_pictures
from workers.replaying.record import ReplayedStep, StepTensors, write_dump
from workers.replaying.replay import Wanted, replay_step
from workers.run.compute import settings_kept
from workers.run.files import RunDir, relative_to_cwd

SHOWN = 5
"""Modules in a list of the largest."""
IMAGES_NAMED = 5
PICTURES = 32
"""Written by default."""


@dataclass(frozen=True)
class Replay:
    """What was found.

    Args:
        run: its directory.
        found: the step, as it was computed here.
        recorded: the digests that the run recorded of it; empty where it did not.
        dump: the folder that was written; None without one.
        recorded_loss: that the run recorded of it; None where there is none that is finite.
        edited: a sentence if `config.yaml` is not what the run was started with; empty otherwise.
    """

    run: Path
    found: ReplayedStep
    recorded: Mapping[str, str]
    dump: Path | None
    _: KW_ONLY
    recorded_loss: float | None = None
    edited: str = ""

    @property
    def equal(self) -> bool | None:
        """Whether every bit that the run recorded of the step is the same: digests, or without them the loss; None
        where it recorded neither."""
        if self.recorded:
            return not self.differing
        return None if self.recorded_loss is None else self.recorded_loss == self.found.loss

    @property
    def differing(self) -> list[str]:
        """What of the step has other bits than those that the run recorded."""
        here: Mapping[Any, str] = self.found.digests
        return [what for what in DIGESTED if self.recorded and self.recorded.get(what) != here.get(what)]

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._table(), *self._images(), *self._bits()])

    def _head(self) -> list[str]:
        step = self.found
        begin = f"the snapshot after {step.start} steps" if step.start else "the beginning of the run"
        more = step.step - step.start
        way = f"{begin}, and {more} step{'s' * (more != 1)} from there" if more else begin
        lines = [f"step {step.step} of stage {step.stage} of {relative_to_cwd(self.run)}, from {way}"]
        if step.learns:
            terms = ", ".join(f"{name} {value:.6g}" for name, value in step.terms.items())
            norm = "" if step.gradient_norm is None else f"  gradient norm {step.gradient_norm:.6g}"
            moved = "skipped: nothing moved" if step.skipped else f"learning rate {step.learning_rate:g}"
            loss = "none" if step.loss is None else f"{step.loss:.6g}"
            lines.append(f"loss {loss}{f' ({terms})' if terms else ''}{norm}  {moved}")
        else:
            lines.append("it only runs forward at this step: no loss, no gradient")
        if step.weights is not None:
            lines.append(f"before the step: {step.weights} is not finite already")
        if step.forward is not None:
            lines.append(f"first not finite, forward: {step.forward}")
        elif step.backward is not None:
            lines.append(f"first not finite, backward: {step.backward}")
        return lines

    def _table(self) -> list[str]:
        """The modules that matter, in the order of their calls."""
        if self.found.last_calls:
            return ["", *_calls(self.found.last_calls)]
        leaves = [m for m in self.found.modules if m.leaf and not m.name.startswith(("objective", "noise"))]
        by_output = sorted(leaves, key=lambda m: -_size(m.output))[:SHOWN]
        by_gradient = sorted(leaves, key=lambda m: -_size(m.gradient))[:SHOWN]
        chosen = [m for m in leaves if m in by_output or m in by_gradient]
        title = "modules with the largest outputs and gradients"
        width = max([len(title), *(len(m.name) for m in chosen)])
        head = f"{title:{width}}  {'output':>10}  {'largest':>10}  {'grad. of output':>15}  {'of parameters':>13}"
        return ["", head, *(_row(module, width) for module in chosen)]

    def _images(self) -> list[str]:
        lines = ["", f"images by {self.found.measure}:"]
        for image in self.found.images[:IMAGES_NAMED]:
            name = f"{image.name}, class {image.label}" if image.label >= 0 else image.name
            lines.append(f"  {image.rank}  {image.measure:<10.4g}  {name}{'  (not finite)' if image.broken else ''}")
        if (broken := sum(image.broken for image in self.found.images)) and broken < len(self.found.images):
            lines.append(f"  {broken} of {len(self.found.images)} had a number there that is not finite")
        if self.dump is not None:
            lines.append(self._dumped(self.dump))
        return lines

    def _dumped(self, dump: Path) -> str:
        count = len(self.found.images)
        shown = sum(image.file is not None for image in self.found.images)
        if shown == count:
            return f"tensors, numbers and pictures of all {count} are in {dump}"
        which = f"the first {shown}, not of the other {count - shown} (--images {count} writes all)"
        return f"tensors and numbers of all {count} are in {dump}, with pictures of {which}"

    def _bits(self) -> list[str]:
        lines = ["", *([self.edited] if self.edited else []), *self._compared()]
        if self.equal is False:
            lines.append(f"onward verify {relative_to_cwd(self.run)} --from {self.found.start} says where that begins")
        return [*lines, *(f"other bits may be right: {note}" for note in self.found.notes)]

    def _compared(self) -> list[str]:
        if self.recorded and self.equal:
            return [f"equal to the bit to what the run recorded: {', '.join(self.recorded_names)}"]
        if self.recorded:
            return [f"NOT the bits that the run recorded: {', '.join(self.differing)} differ"]
        without = "the run recorded no digests of this step (digests.every)"
        if self.equal is None:
            return [f"{without} and no loss, so nothing was compared"]
        if self.equal:
            return [f"{without}; its loss, {self.recorded_loss}, is equal to the bit, and is all that can be compared"]
        return [f"NOT the loss that the run recorded: {self.recorded_loss} there, {self.found.loss} here; {without}"]

    @property
    def recorded_names(self) -> list[str]:
        """What the run recorded of the step."""
        return [what for what in DIGESTED if what in self.recorded]


def _size(value: float | None) -> float:
    return float("inf") if value is not None and not isfinite(value) else value or 0.0


def _calls(calls: Sequence[CallNumbers]) -> list[str]:
    title = "the last calls"
    width = max([len(title), *(len(call.name) for call in calls)])
    head = f"{title:{width}}  call  {'output':>10}  {'largest':>10}  not finite"
    rows = [f"{c.name:{width}}  {c.call:4}  {c.output:10.4g}  {c.largest:10.4g}  {c.not_finite:10,}" for c in calls]
    return [head, *rows]


def _row(module: ModuleNumbers, width: int) -> str:
    gradient, parameters = ("-" if v is None else f"{v:.4g}" for v in (module.gradient, module.parameters))
    return f"{module.name:{width}}  {module.output:10.4g}  {module.largest:10.4g}  {gradient:>15}  {parameters:>13}"


def replay_run(
    run_dir: Path,
    stage: int,
    step: int,
    *,
    first: int | None = None,
    dump: Path | None = None,
    images: int | None = None,
    overrides: Sequence[str] = (),
    trusted: bool = False,
    console: Console | None = None,
) -> Replay:
    """Compute one step of one stage of a run again; the run stays as it is.

    Args:
        run_dir: what `onward train` wrote.
        stage: from 1.
        step: counted from 0, as in `metrics.jsonl` and in messages.
        first: begin with the snapshot after so many steps or fewer; by default the last one before the step.
        dump: folder for tensors, numbers and pictures; None for none.
        images: how many pictures are written; None: `PICTURES`.
        overrides: `KEY=VALUE` of where and how it is computed here, such as `device` or `data.root`.
        trusted: import and call what its configuration names, although it is another user's file.
        console: for the progress; None for none.

    Raises:
        ConfigError, UserError: there is no such step or stage, no snapshot before it, or the data have changed.
    """
    read_config(run_dir)
    run, config = RunDir(run_dir), config_here(run_dir, overrides, trusted)
    check_stage(config, stage)
    if images is not None and dump is None:
        raise UserError("--images is the number of pictures in the folder of --dump. Give --dump FOLDER with it")
    if dump is not None:
        _check_place(dump, run)
    start = start_of_step(run, step, first, config.snapshots.every)
    check_data(Splits(config.data), run, "say where that is with data.root=FOLDER")
    wanted = Wanted(stage=stage, step=step, start=start, keep=dump is not None)
    device = torch.device(_device(config))
    with settings_kept(), ProgressLine(console or command_console(quiet=True)) as line:
        found, tensors = replay_step(
            config, run, wanted, device, lambda done, count: line.show("computing the steps before", done, count)
        )
    found = replace(found, images=with_pictures(found.images, PICTURES if images is None else images))
    with_loss = config.num_stages if config.mode == "end_to_end" else stage
    recorded = digests_of(run, step, step + 1).get(step, {}).get(stage, {})
    replay = Replay(
        run.path,
        found,
        {name: digest for name, digest in recorded.items() if name in DIGESTED},
        dump,
        recorded_loss=loss_of(run, step, with_loss),
        edited=edited(run),
    )
    if dump is not None:
        _write(dump, replay, tensors, device)
    return replay


def _check_place(dump: Path, run: RunDir) -> None:
    """Raises `UserError` where a dump would lie among the files of the run, which stays as it is."""
    if dump.exists() and not dump.is_dir():
        raise UserError(f"'{dump}' is not a folder. Give --dump another one")
    place = dump.resolve()
    if place == run.path.resolve() or any(place.is_relative_to(folder.resolve()) for folder in run.folders):
        raise UserError(f"'{dump}' has the files of the run itself, which stays as it is. Give --dump another folder")


def _device(config: Config) -> str:
    """That of the first stage, as of a run in one process."""
    return place(config.model_copy(update={"runtime": "serial", "replicas": 1}), count_gpus())[0].device


def _write(dump: Path, replay: Replay, tensors: StepTensors, device: torch.device) -> None:
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("onward", "torch", "numpy")}}
    more = {
        "run": str(replay.run.absolute()),
        "device": str(device),
        "versions": versions,
        "recorded": dict(replay.recorded),
        "recorded_loss": replay.recorded_loss,
        "equal": replay.equal,
    }
    try:
        write_dump(dump, replay.found, tensors, more)
    except OSError as error:
        raise UserError(
            f"'{error.filename or dump}' cannot be written ({error.strerror or error}). Make room, or give --dump "
            "another folder"
        ) from None
