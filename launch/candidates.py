"""What `onward select` chooses from: the evaluations of runs, and of snapshots of runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.run_dir import read_config
from launch.showing.naming import QUALITY, clean
from pipeline.errors import UserError
from pipeline.evaluation.document import Document
from pipeline.evaluation.places import Feature, Place

LAST = "last"
"""Instead of the number of a block: every run's own last one."""


@dataclass(frozen=True)
class Candidate:
    """One evaluated network.

    Args:
        name: as it was given: `RUN`, or `RUN@STEPS` for a snapshot.
        document: its evaluation.
        block: that it is judged by.
    """

    name: str
    document: Document
    block: int

    def value(self, feature: Feature, measure: str, metric: str) -> float | None:
        """A number of the block, on the data that the run was trained on."""
        data, place = self.document.data.name, Place(self.block, feature)
        for record in self.document.results:
            if (record.data, record.place, record.measure, record.metric) == (data, place, measure, metric):
                return record.value
        return None


def read_candidates(names: Sequence[str], block: str) -> list[Candidate]:
    """The evaluations of `RUN` or `RUN@STEPS`, two or more.

    Args:
        names: as they were given.
        block: a number from 1, or `last`.

    Raises:
        UserError: no such run, no evaluation, a damaged one, or one without measures of that block.
    """
    if len(names) < 2:
        raise UserError("one run is nothing to choose from. Give two or more, or RUN@STEPS for snapshots of one")
    found: list[Candidate] = []
    given: set[tuple[Path, int | None]] = set()
    for name in names:
        path, steps = _where(name)
        if (path.resolve(), steps) in given:
            raise UserError(f"'{clean(name)}' is given twice. Give every run once")
        given.add((path.resolve(), steps))
        document = _read(path, steps)
        measured = {r.block for r in document.results if r.measure == QUALITY and r.data == document.data.name}
        if not measured:
            remedy = f"Run '{_command(path, steps)} evaluation.quality.enabled=true'"
            raise UserError(f"the evaluation of '{clean(name)}' has no measures without labels. {remedy}")
        number = max(measured) if block == LAST else int(block)
        if number not in measured:
            known = ", ".join(map(str, sorted(measured)))
            raise UserError(f"--block: the evaluation of '{clean(name)}' has no block {number}. It has {known}")
        found.append(Candidate(name, document, number))
    return found


def _where(name: str) -> tuple[Path, int | None]:
    """The run directory, and the steps of the snapshot; None for the trained network."""
    split = re.fullmatch(r"(.+)@(\d{1,18})", name)
    if split is None or Path(name).is_dir():  # a folder may have such a name
        return Path(name), None
    return Path(split[1]), int(split[2])


def _command(path: Path, steps: int | None) -> str:
    return f"onward evaluate {path}" + ("" if steps is None else f" evaluation.checkpoint={steps}")


def _read(path: Path, steps: int | None) -> Document:
    read_config(path)
    file = path / ("evaluation.json" if steps is None else f"evaluation/step_{steps}.json")
    if not file.is_file():
        raise UserError(f"'{file}' does not exist: that was not evaluated. Run '{_command(path, steps)}' first")
    document = Document.read(file)
    if document.checkpoint != steps:
        taken = document.checkpoint
        what = "the trained network" if taken is None else f"the snapshot after {taken} steps"
        remedy = f"Run '{_command(path, steps)}' again" + (f", or give {path}@{taken}" if steps is None else "")
        raise UserError(f"'{file}' is of {what}. {remedy}")
    return document
