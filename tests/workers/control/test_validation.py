"""What another process says is checked field by field, and nothing is converted into what it should have been."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import TrainingError
from workers.control.failures import FailureReport
from workers.control.step_report import StepReport
from workers.control.validation import MalformedMessage, read_message
from workers.snapshots.manifest import StageFile

REPORT = StepReport(
    2,
    0,
    loss=0.5,
    terms={"invariance": None, "redundancy": 1.0},
    learning_rate=0.1,
    skipped=0,
    busy=0.1,
    wait_input=0.1,
    wait_output=0.1,
    queue_depth=1,
    link_bytes=100,
)
SIGN = FailureReport("stage 1", None, "raised", "it broke")
FILE = StageFile("stage_1.safetensors", 10, "0" * 64, {"skipped_in_a_row": 0})


def test_what_is_right_is_read_back() -> None:
    assert StepReport.from_message(REPORT.to_message()) == REPORT
    assert FailureReport.from_message(SIGN.to_message()) == SIGN
    assert read_message(StageFile, vars(FILE)) == FILE


@pytest.mark.parametrize(
    ("right", "field", "wrong"),
    [
        (REPORT, "stage", 0),
        (REPORT, "stage", True),
        (REPORT, "stage", "2"),
        (REPORT, "stage", 2.0),
        (REPORT, "step", -1),
        (REPORT, "step", 2**63),
        pytest.param(REPORT, "step", 10**5000, id="endless"),
        (REPORT, "loss", "0.5"),
        (REPORT, "loss", float("nan")),
        (REPORT, "terms", {"invariance": float("inf")}),
        (REPORT, "terms", []),
        (REPORT, "busy", -0.1),
        (REPORT, "link_bytes", None),
        (SIGN, "who", 7),
        (SIGN, "who", "x" * 1000),
        (SIGN, "step", "3"),
        (SIGN, "kind", "bored"),
        (SIGN, "cause", None),
        (FILE, "file", "../stage_1.safetensors"),
        (FILE, "file", "stage_1.safetensors\n"),
        (FILE, "file", "stage_\u0663.safetensors"),
        (FILE, "bytes", 2**63),
        (FILE, "bytes", True),
        (FILE, "sha256", "A" * 64),
        (FILE, "counters", {"skipped_in_a_row": float("nan")}),
        (FILE, "counters", {"skipped_in_a_row": 2**53}),
        (FILE, "counters", {"deep": {"deep": {"deep": {"deep": {}}}}}),
        (FILE, "counters", {"long": "x" * 2000}),
    ],
)
def test_what_is_wrong_is_named(right: Any, field: str, wrong: object) -> None:
    message = {**vars(right), field: wrong}
    with pytest.raises(MalformedMessage, match=f"^a message (without a valid '{field}|that cannot be read)"):
        read_message(type(right), message)
    del message[field]
    with pytest.raises(MalformedMessage, match=f"without a valid '{field}'"):
        read_message(type(right), message)


def test_a_process_speaks_for_its_own_stages_only() -> None:
    assert StepReport.from_process(REPORT.to_message(), (1, 2)) == REPORT
    with pytest.raises(TrainingError, match="a report of stage 2, which it does not train"):
        StepReport.from_process(REPORT.to_message(), (1, 3))
