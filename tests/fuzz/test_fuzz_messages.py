"""Whatever bytes a peer sends, parsing them ends soon: with what they say, or an error that was meant."""

from __future__ import annotations

import functools
import json
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TrainingError
from pipeline.measures.online import Measure
from tests.fuzz.fuzzing import EDITS, JSON, attempt, edited, fuzzed, with_one_changed
from workers.control.channel import _decode, name_in
from workers.control.failures import FailureReport
from workers.control.step_report import StepReport, ThrottleReason
from workers.control.validation import MalformedMessage
from workers.feed import FeedMeasures
from workers.links.base import LinkAddress, LinkMismatch
from workers.links.framed import _frame, _unframe
from workers.links.handshake import compare_hellos, hello_bytes
from workers.links.messages import Header, TensorSpec

pytestmark = pytest.mark.slow

ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="/nowhere", key=b"key", depth=2)
SPEC = TensorSpec((2, 4, 3), torch.float32)
HELLO = hello_bytes(ADDRESS, SPEC, "queue", "none")
FRAME = _frame(Header(3, 0, (0.1, 0.2), labels=b"\0" * 16, samples=b"\0" * 32), torch.zeros(2, 4, 3))
ONLINE = {"linear": 0.5, "knn": None, "rankme": 12.5, "skipped": 1}
REPORT = StepReport(
    1,
    0,
    loss=0.5,
    terms={"invariance": None},
    learning_rate=0.1,
    skipped=0,
    busy=0.1,
    wait_input=0.1,
    wait_output=0.1,
    queue_depth=1,
    link_bytes=100,
    feed=FeedMeasures(images=64),
    online=ONLINE,
    throttled=["power_cap"],
)
SIGN = FailureReport("stage 1", 3, "raised", "it broke")
ANYTHING = st.binary(max_size=100) | st.integers(1, 200_000).map(lambda n: b"[" * n) | JSON.map(repr).map(str.encode)


def hello(data: bytes) -> None:
    _, refusal = attempt(lambda: compare_hellos(ADDRESS, data, HELLO), LinkMismatch)
    if refusal is not None:
        assert refusal.startswith("link1 (stage 1 -> stage 2)")
        return
    said, agreed = json.loads(data), json.loads(HELLO)
    assert {key: said[key] for key in agreed} == agreed


@given(data=ANYTHING | EDITS.map(lambda edits: edited(HELLO, edits)))
@fuzzed
def test_a_hello(data: bytes) -> None:
    hello(data)


@given(value=with_one_changed(json.loads(HELLO), JSON))
@fuzzed
def test_a_hello_with_any_value(value: Any) -> None:
    try:
        data = json.dumps(value).encode()
    except ValueError:  # an integer that Python does not write
        return
    hello(data)


@given(data=ANYTHING | EDITS.map(lambda edits: edited(FRAME, edits)))
@fuzzed
def test_a_frame(data: bytes) -> None:
    frame, refusal = attempt(lambda: _unframe(data), TrainingError)
    if refusal is None:
        header, shape = frame
        assert isinstance(header.step, int)
        assert SPEC.admits(shape, SPEC.dtype) in (True, False)


@given(data=ANYTHING | EDITS.map(lambda edits: edited(FRAME[25:], edits)))
@fuzzed
def test_a_header(data: bytes) -> None:
    header, refusal = attempt(lambda: Header.from_bytes(data), TrainingError)
    if refusal is None:
        assert all(isinstance(level, float) for level in header.noise_levels)
        assert header.learner is None or isinstance(header.learner, int)


@given(data=ANYTHING | EDITS.map(lambda edits: edited(b'{"hello": "stage 1"}', edits)))
@fuzzed
def test_a_control_message(data: bytes) -> None:
    message, refusal = attempt(lambda: _decode(data), TrainingError)
    assert refusal or isinstance(message, dict)
    name, refusal = attempt(lambda: name_in(data), TrainingError)
    assert refusal or isinstance(name, str)


@given(
    report=with_one_changed(REPORT.to_message(), JSON),
    sign=with_one_changed(SIGN.to_message(), JSON),
)
@fuzzed
def test_a_report_and_a_sign(report: Any, sign: Any) -> None:
    for message, original in ((report, REPORT), (sign, SIGN)):
        if not isinstance(message, dict):
            continue
        found, refusal = attempt(functools.partial(original.from_message, message), MalformedMessage)
        if refusal is not None:
            assert refusal.isprintable()
            continue
        if isinstance(found, StepReport):
            assert found.online.keys() <= set(get_args(Measure))
            assert set(found.throttled or ()) <= set(get_args(ThrottleReason))
            assert all(value is None or isinstance(value, float | int) for value in found.online.values())
        for name, value in vars(original).items():  # nothing was converted
            allowed = (float, int) if value is None or isinstance(value, float) else type(value)
            assert getattr(found, name) is None or isinstance(getattr(found, name), allowed)
