"""One cause out of many signs."""

from __future__ import annotations

import pytest

from pipeline.errors import TrainingError, UserError
from workers.control.failures import FailureReport, Interrupted, failure_report, root_cause
from workers.links.base import LinkClosed, LinkTimeout


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (ValueError("bad\n  thing"), "raised", "ValueError: bad thing"),
        (TrainingError("loss is nan"), "raised", "loss is nan"),
        (UserError("cannot read 'x.jpg'"), "bad_input", "cannot read 'x.jpg'"),
        (LinkClosed("gone"), "lost_neighbour", "gone"),
        (LinkTimeout("late"), "timeout", "late"),
        (Interrupted("asked"), "interrupted", "asked"),
    ],
)
def test_signs_tell_kinds_apart(error: BaseException, kind: str, cause: str) -> None:
    failure = failure_report("stage 2", 7, error)
    assert (failure.kind, failure.cause) == (kind, cause)
    assert FailureReport.from_message(failure.to_message()) == failure


def test_the_cause_is_not_the_neighbours_complaint() -> None:
    lost = failure_report("stage 1", 7, LinkClosed("stage 2 has gone"))
    interrupted = failure_report("stage 4", 6, Interrupted("asked to stop"))
    died = FailureReport("stage 2", 7, "died", "killed")
    raised = failure_report("stage 3", 7, ValueError("x"))
    assert root_cause([lost, interrupted]) is lost
    assert root_cause([lost, interrupted, died]) is died
    assert root_cause([lost, interrupted, died, raised]) is raised
    assert str(died.error()) == "stage 2 failed at step 7: killed"
