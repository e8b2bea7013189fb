"""The evaluations that `onward select` chooses from, of runs and of snapshots of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.commands.evaluation_reader import evaluate_command, read_evaluations
from launch.results.measure_names import QUALITY, clean
from pipeline.config.places import Feature, Place
from pipeline.errors import UserError
from pipeline.evaluation.document import EvaluationResults

LAST = "last"
"""Instead of the number of a block: every run's own last one."""


@dataclass(frozen=True)
class Candidate:
    """One evaluated network.

    Args:
        name: as it was given: `RUN`, or `RUN@STEPS` for a snapshot.
        document: its evaluation.
        block: the one whose measures are used.
    """

    name: str
    document: EvaluationResults
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
    candidates: list[Candidate] = []
    for run in read_evaluations(names):
        document, shown = run.document, clean(run.name)
        measured = {r.block for r in document.results if r.measure == QUALITY and r.data == document.data.name}
        if not measured:
            command = evaluate_command(run.path, document.checkpoint)
            remedy = f"Run '{command} evaluation.quality.enabled=true'"
            raise UserError(f"the evaluation of '{shown}' has no measures without labels. {remedy}")
        number = max(measured) if block == LAST else int(block)
        if number not in measured:
            blocks = ", ".join(map(str, sorted(measured)))
            raise UserError(f"--block: the evaluation of '{shown}' has no block {number}. It has {blocks}")
        candidates.append(Candidate(run.name, document, number))
    return candidates
