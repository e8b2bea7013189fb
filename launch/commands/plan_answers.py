"""What `onward plan` has found: as text for people, as a document for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from launch.partition.changed_keys import changed_keys
from launch.partition.findings import PlanFindings, WhatIfFindings
from launch.partition.request import PlanRequest
from launch.results.grid import Grid, markdown_of
from launch.results.plan_sentences import RunLength, limits, plan_sentences
from launch.results.plan_tables import plan_grid, what_if_grid
from launch.results.printing import print_grid, print_lines
from pipeline.config import Config
from pipeline.errors import printable
from pipeline.validation.loading import parse_config
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


def heading_of(planned: Planned) -> str:
    """Comments above the configuration of a plan."""
    lines = [_title(planned.config, planned.found, planned.request), *planned.lines(), *planned.notes]
    return "".join(f"# {printable(line)}\n" for line in lines)


def _print_folded(console: Console, lines: Sequence[str]) -> None:
    """Print lines, broken between words where the console is narrow."""
    width = min(console.out.width, WIDEST)
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())] + "  "
        folded = textwrap.wrap(printable(line), width, subsequent_indent=indent, break_on_hyphens=False)
        print_lines(console, *folded)
