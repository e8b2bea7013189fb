"""`onward plan CONFIG --gpus N`: where to cut, how many replicas, what to compute again, so that most images/s come."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from launch.partition.changed_keys import changed_keys
from launch.partition.findings import PlanFindings, WhatIfFindings
from launch.partition.plan_child import PlanProcess
from launch.partition.request import PlanRequest, check_plannable, constraints_of
from launch.plan.data_facts import facts_without_plan
from launch.prepare.ranks import check_for_hosts
from launch.results.grid import Grid, markdown_of
from launch.results.plan_sentences import RunLength, limits, plan_sentences
from launch.results.plan_tables import plan_grid, what_if_grid
from launch.results.printing import print_grid, print_lines
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.data.sampler import StepPlan
from pipeline.errors import ConfigError, UserError, printable
from pipeline.ordinary_files import open_to_write
from pipeline.validation.loading import dump_config, parse_config
from workers.observing.terminal.console import Console
from workers.run.cores import usable_cores

WIDEST = 110
"""Columns of a folded line."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What `onward plan` has found; as text for people, as a document for programs.

    Args:
        config: of the run as it is.
        request: the question.
        found: the answer.
        length: of the run.
        given_notes: sentences of who read the configuration.
        written: where the plan's configuration was written.
    """

    config: Config
    request: PlanRequest
    found: PlanFindings
    length: RunLength
    given_notes: tuple[str, ...] = ()
    written: Path | None = None

    @property
    def planned(self) -> Config:
        """The configuration of the plan."""
        return parse_config(self.found.plan.config, build=False)

    @property
    def changes(self) -> dict[str, Any]:
        """The keys of it that differ, nested."""
        return changed_keys(self.config, self.planned)

    @property
    def yaml(self) -> str:
        """The same as YAML that can be pasted."""
        return _as_yaml(self.changes)

    @property
    def notes(self) -> tuple[str, ...]:
        """All sentences for the user."""
        return (*self.given_notes, *_notes(self))

    @property
    def document(self) -> dict[str, Any]:
        """All of it as values that JSON has."""
        plan, now = self.found.plan, self.found.now
        hours = {name: self.length.seconds(each) for name, each in (("plan", plan), ("now", now))}
        return {**asdict(self.found), "run_seconds": hours, "changes": self.changes, "notes": list(self.notes)}

    @property
    def grid(self) -> Grid:
        """A row for each stage."""
        return plan_grid(self.found, _title(self.config, self.found, self.request))

    def lines(self) -> list[str]:
        """What stands below the table."""
        return plan_sentences(self.found, self.request, self.length)

    def __str__(self) -> str:
        """As Markdown."""
        notes = [f"note: {printable(note)}" for note in self.notes]
        block = f"```yaml\n{self.yaml}```" if self.changes else ""
        return "\n".join([markdown_of(self.grid), *self.lines(), *notes, block])

    def show(self, console: Console) -> None:
        """Print it."""
        print_grid(console, self.grid)
        _print_folded(console, [*self.lines(), *(f"note: {note}" for note in self.notes)])
        if self.changes:
            print_lines(console, "", *self.yaml.splitlines())
        if self.written is not None:
            print_lines(console, "", f"onward train {self.written}")


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """Two settings side by side; as text for people, as a document for programs.

    Args:
        changes: of the second, `KEY=VALUE`.
        found: the answer.
        notes: sentences for the user.
    """

    changes: tuple[str, ...]
    found: WhatIfFindings
    notes: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """All of it as values that JSON has."""
        return {**asdict(self.found), "changes": list(self.changes), "notes": list(self.notes)}

    @property
    def grid(self) -> Grid:
        """A column for each setting."""
        return what_if_grid(self.found, self.changes)

    def lines(self) -> list[str]:
        """What stands below the table."""
        given, changed = self.found.given, self.found.changed
        times = changed.images_per_second / given.images_per_second
        return [f"x {times:.2f} images/s; {_source(self.found)}", *limits(changed)]

    def __str__(self) -> str:
        """As Markdown."""
        return "\n".join([markdown_of(self.grid), *self.lines(), *(f"note: {printable(note)}" for note in self.notes)])

    def show(self, console: Console) -> None:
        """Print it."""
        print_grid(console, self.grid)
        _print_folded(console, [*self.lines(), *(f"note: {note}" for note in self.notes)])


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
        _write_new(write, _heading(planned) + dump_config(planned.planned))
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


def _title(config: Config, found: PlanFindings, request: PlanRequest) -> str:
    blocks = len(found.plan.stages)
    device = _counted(config.threads, "core") if found.device == "cpu" else found.device
    used = len({name.rpartition("cuda:")[0] for stage in found.plan.stages for name in stage.devices})
    hosts = (
        f" on {request.hosts if used == request.hosts else f'{used} of {request.hosts}'} hosts"
        if request.hosts > 1
        else ""
    )
    where = f"{found.plan.devices} x {device}{hosts}"
    named = f"{config.model.backbone} in {blocks} block{'s' if blocks > 1 else ''}"
    return f"{named} on {where}, {_source(found)}"


def _source(found: PlanFindings | WhatIfFindings) -> str:
    return "estimated from operations and bytes" if found.estimated else "measured here"


def _notes(planned: Planned) -> list[str]:
    before, after, setting = planned.config, planned.planned, planned.found.plan
    notes, cores = [], usable_cores()
    on_cpu = all(device == "cpu" for stage in setting.stages for device in stage.devices)
    if on_cpu and setting.devices * before.threads > cores:
        each, here = _counted(before.threads, "core"), _counted(cores, "core")
        notes.append(f"a device is {each} (threads); this machine has {here}, which {setting.devices} would share")
    if after.num_stages != before.num_stages:
        problem = f"{after.num_stages} blocks in place of {before.num_stages} are another method"
        notes.append(f"{problem}, as each block has a loss of its own")
    elif after.model.cuts != before.model.cuts:
        notes.append("other cuts train other blocks, so results are those of another partition; --keep-cuts keeps them")
    if any(_rounds_differently(before, after, index) for index in range(1, after.num_stages + 1)):
        notes.append("replicas and chunks sum in another order than before, so the last bits of results differ")
    if after.data.drop_last and not before.data.drop_last:
        notes.append("replicas need data.drop_last=true: the smaller batch at the end of an epoch is left out")
    if gone := [index for index in before.stages if index > after.num_stages]:
        notes.append(f"there is no stage {gone[0]} any more: leave stages.{gone[0]} out of the file")
    return notes


def _rounds_differently(before: Config, after: Config, index: int) -> bool:
    if index > before.num_stages:
        return False
    one, other = before.stage(index), after.stage(index)
    return one.replicas != other.replicas or getattr(one.head, "chunk", None) != getattr(other.head, "chunk", None)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _as_yaml(values: dict[str, Any]) -> str:
    """Sections as blocks, and what holds only values in one line."""
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=WIDEST)


def _heading(planned: Planned) -> str:
    lines = [_title(planned.config, planned.found, planned.request), *planned.lines(), *planned.notes]
    return "".join(f"# {printable(line)}\n" for line in lines)


def _write_new(path: Path, text: str) -> None:
    try:
        with open_to_write(path, new=True) as file:
            file.write(text.encode())
    except FileExistsError:
        raise UserError(f"--write: '{path}' is there, and nothing is written over it. Name a new file") from None


def _print_folded(console: Console, lines: Sequence[str]) -> None:
    """Print lines, broken between words where the console is narrow."""
    width = min(console.out.width, WIDEST)
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())] + "  "
        folded = textwrap.wrap(printable(line), width, subsequent_indent=indent, break_on_hyphens=False)
        print_lines(console, *folded)
