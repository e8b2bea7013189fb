"""`onward.train` and `onward.resume`: the command's work in a process of its own; with Python objects, in this one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.processes.own_process import OwnProcess
from onward import config as configurations
from onward.notebook import in_kernel
from onward.objects import Objects, check_one_process
from onward.overrides import as_text
from onward.run import Run
from pipeline import config as settings
from pipeline.errors import OnwardError, TrainingError
from workers.control.start_messages import CommandStart
from workers.observing.terminal.verbosity import Verbosity

if TYPE_CHECKING:
    from torch import nn

    from pipeline.objectives import Objective
    from workers.observing.trackers import Tracker

COMMAND_PROCESS = "onward.command_process"


class OwnRun(Run):
    """A run in processes of its own.

    Args:
        process: supervises them; it has prepared the run.
        path, start_step: as `Run`.
    """

    def __init__(self, process: OwnProcess, path: Path, start_step: int) -> None:
        self._process = process
        super().__init__(path, start_step)

    @property
    def exit_code(self) -> int | None:
        """See `Run.exit_code`; 1 also where the process was killed."""
        code = self._process.poll()
        if code is None:
            return None
        _LIVING.discard(self)
        return 1 if code < 0 else code

    @property
    def pid(self) -> int:
        """Process that supervises the run; SIGTERM stops the run after a snapshot."""
        return self._process.pid

    def _ask(self) -> None:
        self._process.stop()

    def _error(self) -> OnwardError | None:
        return self._process.error()


_LIVING: set[OwnRun] = set()
"""Runs that still train: one that nobody holds any more goes on until the program ends."""


def train(
    config: settings.Config | str | os.PathLike[str],
    *,
    wait: bool = True,
    overrides: Mapping[str, object] | None = None,
    progress: bool | None = None,
    force: bool = False,
    network: nn.Module | object | None = None,
    loss: Objective | object | None = None,
    data: object | None = None,
    trackers: Sequence[Tracker | object] = (),
    **keywords: object,
) -> Run:
    """Train a network, as `onward train` does; a run that was stopped in `run_dir` is continued.

    It works in a script, also without `if __name__ == "__main__"`, in a notebook and in a thread. The run's processes
    end after a snapshot when this program does, so wait for it.

    Args:
        config: the path of a YAML file, the name of a preset, `quickstart`, or an `onward.Config`.
        wait: return when the run has ended. Otherwise when everything is checked and the run directory is written; see
            `Run`.
        overrides: values by dotted key: `{"train.epochs": 2}`.
        progress: print what the command prints; by default where this waits, and in a notebook the run's table instead.
        force: as `--force`: start it although it needs more memory than its devices have.
        network: for `runtime="serial"`, a `torch.nn.Module`, copied for each block, or a function that returns one, in
            the place of `model.backbone`; `model__output` and `model__cuts` name its modules.
        loss: likewise an `onward.Objective`, copied for each block, or a class or function of the embeddings' width
            that gives one, in the place of `objective.kind`.
        data: likewise a data set with `len()` and `[index]`, which gives an image (PIL, or uint8 `[H, W]` or
            `[H, W, 3]`), alone or with its class; or a pair of them, for training and for tests.
        trackers: likewise `onward.Tracker`s, beside those of the configuration.
        keywords: keys of the configuration with two underscores for every dot: `train__epochs=2`.

    Raises:
        ConfigError, UserError: what the command refuses, in its words; nothing was trained.
        TrainingError: the run failed; only with `wait`, else `Run.wait` raises it.
        KeyboardInterrupt: with `wait`: after the run has stopped with a snapshot.
    """
    given = {"network": network, "loss": loss, "data": data, "trackers": trackers if trackers != () else None}
    objects = Objects({name: value for name, value in given.items() if value is not None})
    try:
        with objects.meant():
            before = configurations.read(config, None, {})[0].trackers if objects.tracker_count else ()
            named = objects.overrides([tracker.model_dump(mode="json") for tracker in before])
            read, name, notes = configurations.read(config, {**named, **(overrides or {})}, keywords)
        check_one_process(read, objects)
    except BaseException:
        objects.release()
        raise
    if objects.only_here:
        from onward.objects_run import start_with_objects

        return _waited(start_with_objects(read, name, notes, objects, shown(progress, wait)), wait)
    text = json.dumps(read.model_dump(mode="json"))
    start = CommandStart(command="train", parent=os.getpid(), config=text, name=name, notes=notes, force=force)
    return _waited(_started(start, shown(progress, wait)), wait)


def resume(
    run: str | os.PathLike[str] | Run,
    *,
    wait: bool = True,
    overrides: Mapping[str, object] | None = None,
    progress: bool | None = None,
    force: bool = False,
    trust: bool = False,
    **keywords: object,
) -> Run:
    """Go on with a run from its newest snapshot, as `onward resume` does, to the bits of one that was never stopped.

    Args:
        run: its directory, which may have moved; or a run that has ended.
        wait, overrides, progress, force, keywords: as `train`; only what leaves the numbers alone may change.
        trust: as `--trust`: import and call what the configuration names, although it is another user's file.

    Raises:
        ConfigError, UserError: there is no run, or it cannot go on so.
        TrainingError, KeyboardInterrupt: as `train`.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    start = CommandStart(
        command="resume",
        parent=os.getpid(),
        run=str(path),
        overrides=as_text(overrides, keywords),
        force=force,
        trusted=trust,
    )
    return _waited(_started(start, shown(progress, wait)), wait)


def shown(progress: bool | None, wait: bool) -> bool:
    """Whether the lines of the command are printed."""
    return (wait and not in_kernel()) if progress is None else progress


def do(start: CommandStart, progress: bool) -> None:
    """A command that is no run, to its end.

    Raises:
        OnwardError: what it ended with.
        KeyboardInterrupt: after it was ended.
    """
    process = _process(start, progress)
    try:
        process.wait_for("ended")
    except BaseException:
        process.end()
        raise
    if (error := process.error()) is not None:
        raise error
    if code := process.answer("ended"):
        raise TrainingError(f"'onward {start.command}' ended with exit code {code}")


def _process(start: CommandStart, progress: bool) -> OwnProcess:
    return OwnProcess(COMMAND_PROCESS, start, progress, None if progress else Verbosity.QUIET)


def _started(start: CommandStart, progress: bool) -> Run:
    process = _process(start, progress)
    try:
        prepared: Any = process.wait_for("prepared")
    except BaseException:
        process.end()
        raise
    if prepared is None:
        raise process.error() or TrainingError("the run ended before it was prepared")
    run = OwnRun(process, Path(prepared[0]), prepared[1])
    _LIVING.add(run)
    return run


def _waited(run: Run, wait: bool) -> Run:
    return run.wait() if wait else run
