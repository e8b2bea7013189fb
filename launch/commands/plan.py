"""`onward plan CONFIG --gpus N`: where to cut, how many replicas, what to compute again, so that most images/s come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch.commands.plan_answers import Planned, WhatIf, heading_of
from launch.partition.plan_child import PlanProcess
from launch.partition.request import PlanRequest, check_plannable, constraints_of
from launch.plan.data_facts import facts_without_plan
from launch.prepare.ranks import check_for_hosts
from launch.results.plan_sentences import RunLength
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.data.sampler import StepPlan
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import open_to_write
from pipeline.validation.loading import dump_config
from workers.observing.terminal.console import Console


def plan_run(
    config: Config,
    notes: Sequence[str],
    request: PlanRequest,
    write: Path | None = None,
    console: Console | None = None,
) -> Planned:
    """The best use of so many devices; nothing is started.

    Args:
        config: of the run.
        notes: sentences for the user, to be shown before those that are found here.
        request: the question.
        write: a file for the whole configuration of the plan.
        console: for what takes long; None for none.

    Raises:
        ConfigError, UserError: there is nothing to plan, nothing fits, more devices than can be used, or `write` is
            there.
    """
    _check(config, request)
    if write is not None and write.exists():  # before anything is computed
        raise UserError(f"--write: '{write}' is there, and nothing is written over it. Name a new file")
    with PlanProcess(config.threads if request.measure else 1) as process:
        _say_that_it_measures(request, console)
        length = _length(config)
        found = process.plan(config, request)
    planned = Planned(
        config=config, request=request, found=found, length=length, given_notes=tuple(notes), written=write
    )
    if write is not None:
        _write_new(write, heading_of(planned) + dump_config(planned.planned))
    return planned


def check_what_if(request: PlanRequest, write: Path | None) -> None:
    """Raises `UserError` for what is asked beside a comparison, in which nothing is planned."""
    for name, given in (("--write", write), ("--keep-cuts", request.keep_cuts), ("--stages", request.stages)):
        if given:
            raise UserError(f"{name}: it is for a plan, and --what-if makes none. Give one of them")


def compare_settings(
    config: Config, changed: Config, changes: Sequence[str], request: PlanRequest, console: Console | None = None
) -> WhatIf:
    """A run as it is beside the same with changes; nothing is started.

    Args:
        config, changed: of the run, without and with them.
        changes: as they were given, `KEY=VALUE`.
        request: on which devices.
        console: for what takes long; None for none.

    Raises:
        ConfigError, UserError: there is nothing to compare.
    """
    for each in (config, changed):
        check_plannable(each)
        if request.hosts > 1:
            check_for_hosts(each, several=True)
    with PlanProcess(config.threads if request.measure else 1) as process:
        _say_that_it_measures(request, console)
        return WhatIf(changes=tuple(changes), found=process.what_if(config, changed, request))


def _check(config: Config, request: PlanRequest) -> None:
    """Refuse at once what needs no network; a user's own is traced in the process that computes."""
    check_plannable(config)
    if request.hosts > 1:
        check_for_hosts(config, several=True)
    if not isinstance(config.model, ModuleConfig):
        constraints_of(config, request)


def _say_that_it_measures(request: PlanRequest, console: Console | None) -> None:
    if request.measure and console is not None:
        console.say("measuring the parts of the network on this machine, for a minute at most")


def _length(config: Config) -> RunLength:
    """How long the run is, where its images are at hand."""
    images = facts_without_plan(config).images
    if images is None:
        return RunLength(epochs=config.train.epochs, images=None)
    try:
        steps = StepPlan.of(config, images).total_steps
    except ConfigError:  # an epoch has no full batch
        return RunLength(epochs=config.train.epochs, images=None)
    return RunLength(epochs=config.train.epochs, images=steps * config.data.batch_size)


def _write_new(path: Path, text: str) -> None:
    try:
        with open_to_write(path, new=True) as file:
            file.write(text.encode())
    except FileExistsError:
        raise UserError(f"--write: '{path}' is there, and nothing is written over it. Name a new file") from None
