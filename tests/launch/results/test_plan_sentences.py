"""A plan in sentences: each says what follows from the numbers, and none stands where nothing follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.partition.findings import FedPlan
from launch.partition.request import PlanRequest
from launch.results.plan_sentences import RunLength, hours_in_words, plan_sentences
from tests.launch.results.planned import RATE, findings, setting, stage

UNKNOWN = RunLength(epochs=10, images=None)
TWO = setting(stage(1), stage(2))
ASKED = PlanRequest(devices=2)


def test_how_fast_it_is_beside_the_run_as_it_is_and_how_long_it_takes() -> None:
    lines = plan_sentences(findings(TWO), ASKED, RunLength(epochs=10, images=36_000_000))
    assert lines[0] == f"1,000 {RATE} planned, 500 as it is (x 2.00): 10 epochs in 10 h, not 20 h"


def test_the_same_time_is_said_once() -> None:
    lines = plan_sentences(findings(TWO, TWO), ASKED, RunLength(epochs=10, images=36_000_000))
    assert lines[0] == f"1,000 {RATE} planned, 1,000 as it is (x 1.00): 10 epochs in 10 h"


def test_nothing_is_said_of_the_time_of_images_that_nobody_has_counted() -> None:
    assert plan_sentences(findings(TWO), ASKED, UNKNOWN)[0] == f"1,000 {RATE} planned, 500 as it is (x 2.00)"


def test_a_run_that_does_not_fit_as_it_is_has_no_speed() -> None:
    now = replace(TWO, full=("stage 1 needs 100 GiB",))
    assert plan_sentences(findings(TWO, now), ASKED, UNKNOWN)[0] == (
        f"1,000 {RATE} planned; as it is the run does not fit"
    )


def said(found: list[str], start: str) -> str:
    return next((line for line in found if line.strip().startswith(start)), "")


def test_a_stage_that_is_the_limit_is_named_with_what_would_help() -> None:
    lines = plan_sentences(findings(TWO), ASKED, UNKNOWN)
    assert said(lines, "limit") == f"limit: stage 1, 50 % busy; its computing alone allows 1,024 {RATE}"
    assert "head" not in " ".join(lines)
    headed = setting(stage(1, end=0.2), stage(2))
    assert said(plan_sentences(findings(headed), ASKED, UNKNOWN), "its head") == (
        "  its head and loss are 80 % of that: a smaller head would help"
    )
    whole = setting(stage(1, units=("stem",)), stage(2))
    assert "stem, which cannot be cut" in said(plan_sentences(findings(whole), ASKED, UNKNOWN), "it is one unit")


def test_of_stages_that_share_a_process_the_longest_counts() -> None:
    shared = setting(stage(1, seconds=0.1), stage(2, busy=0.9), limiting="stages 1-2")
    assert said(plan_sentences(findings(shared), ASKED, UNKNOWN), "limit").startswith("limit: stages 1-2, 90 % busy")


def test_a_link_or_the_feed_that_is_the_limit() -> None:
    linked = replace(TWO, limit="link", limiting="stage 2")
    lines = plan_sentences(findings(linked), replace(ASKED, hosts=2), UNKNOWN)
    assert said(lines, "limit").startswith("limit: the link into stage 2 carries no more")
    assert "link.codec=bf16" in said(lines, "would help")
    assert "fewer hosts" in said(lines, "would help")
    fed = findings(replace(TWO, limit="feed", limiting="feed"), fed=FedPlan(devices=4, images_per_second=3000.0))
    lines = plan_sentences(fed, ASKED, UNKNOWN)
    assert said(lines, "limit").startswith("limit: the feed makes no more")
    assert "data.workers=12" in said(lines, "would help")
    assert f"3,000 {RATE} (x 3.00) on 4 devices" in said(lines, "would help")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (1500.0, f"with one device more: 1,500 {RATE} (x 1.50)"),
        (1000.0, "one device more would bring nothing"),
        (None, "one device more cannot be used"),
    ],
)
def test_what_the_next_device_brings(more: float | None, expected: str) -> None:
    assert expected in plan_sentences(findings(TWO, more=more), ASKED, UNKNOWN)


def test_devices_that_a_plan_leaves_idle_are_counted() -> None:
    lines = plan_sentences(findings(TWO, more=1000.0), PlanRequest(devices=5), UNKNOWN)
    assert "2 of the 5 devices do it; the others bring nothing" in lines


def test_other_cuts_and_more_memory_are_named_where_they_bring_something() -> None:
    lines = plan_sentences(findings(TWO, free=1300.0, roomy=1001.0), ASKED, UNKNOWN)
    assert f"  other cuts (without --keep-cuts): 1,300 {RATE} (x 1.30)" in lines
    assert "memory" not in " ".join(lines)
    lines = plan_sentences(findings(TWO, roomy=1300.0), ASKED, UNKNOWN)
    assert f"  memory costs time, too: with more than 80 GiB 1,300 {RATE} (x 1.30)" in lines


def test_what_is_computed_again_is_named_by_its_stages() -> None:
    made = setting(stage(1, recompute="units", chunk=128), stage(2, recompute="views"), stage(3, recompute="units"))
    lines = plan_sentences(findings(made), PlanRequest(devices=3), UNKNOWN)
    assert "computed again: units of stages 1, 3" in lines
    assert "computed again: views of stage 2" in lines
    assert "head in slices of 128 images: stage 1" in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30 s"), (600, "10 min"), (12_000, "3 h 20 min"), (7200, "2 h"), (277 * 3600, "11 days 13 h"), (None, "")],
)
def test_hours_in_words(seconds: float | None, text: str) -> None:
    assert hours_in_words(seconds) == text
