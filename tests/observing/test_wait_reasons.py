"""What the slowest process of a run waits for, and what that waits for in turn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pipeline.small import small_config
from workers.observing.wait_reasons import ProcessTime, Reason, reason_of


def times(*processes: dict[str, float]) -> list[ProcessTime]:
    """Of processes of one stage each, in a hundred seconds."""
    nothing = {"busy": 0.0, "wait_input": 0.0, "wait_output": 0.0, "copying": 0.0}
    return [ProcessTime(stages=(number,), **{**nothing, **spent}) for number, spent in enumerate(processes, 1)]


def why(
    *processes: dict[str, float], slowest: int, lost: float = 0.0, ended: bool = True, **sections: Any
) -> Reason | None:
    """Of a hundred seconds."""
    return reason_of(small_config(**sections), times(*processes), slowest - 1, 100.0, lost, ended)


def said(*processes: dict[str, float], slowest: int, **others: Any) -> Reason:
    found = why(*processes, slowest=slowest, **others)
    assert found is not None
    return found


def test_stage_1_waits_for_images() -> None:
    found = said({"busy": 59, "wait_input": 41}, {"busy": 20, "wait_input": 80}, slowest=1, data={"workers": 2})
    assert found == Reason("feed", "stage 1 waits for images 41 % of the time: raise data.workers (it is 2)")


def test_a_stage_behind_others_that_wait_waits_for_images_too() -> None:
    found = said(
        {"busy": 30, "wait_input": 70}, {"busy": 40, "wait_input": 60}, {"busy": 58, "wait_input": 42}, slowest=3
    )
    assert found.cause == "feed"
    assert found.sentence.startswith("stage 3 waits for images 42 % of the time")


def test_it_waits_for_a_stage_that_copies() -> None:
    found = said({"busy": 40, "copying": 58, "wait_input": 2}, {"busy": 70, "wait_input": 30}, slowest=2)
    assert found == Reason(
        "link", "stage 2 waits 30 % of the time for stage 1, which copies 58 % of it: see link.kind and link.codec"
    )


def test_it_waits_for_a_stage_that_computes_nearly_as_long() -> None:
    found = said(
        {"busy": 79, "wait_output": 21}, {"busy": 20, "wait_input": 79}, {"busy": 80, "wait_input": 20}, slowest=3
    )
    assert found == Reason("stage", "stage 3 waits 20 % of the time for stage 1, which computes 79 % of it")


def test_it_waits_for_room_at_a_stage_that_copies() -> None:
    found = said(
        {"busy": 60, "wait_output": 40}, {"busy": 30, "wait_output": 70}, {"busy": 55, "copying": 45}, slowest=1
    )
    assert found == Reason(
        "link",
        "stage 1 waits 40 % of the time for room at stage 3, which copies 45 % of it: see link.kind and link.codec",
    )


def test_it_copies_itself() -> None:
    found = said({"busy": 60, "copying": 30, "wait_input": 10}, {"busy": 20}, slowest=1)
    assert found == Reason("link", "stage 1 copies 30 % of the time: see link.kind and link.codec")


def test_processes_were_replaced_and_the_others_waited() -> None:
    found = said({"busy": 50, "wait_input": 10, "wait_output": 40}, {"busy": 30}, slowest=1, lost=35.0)
    assert found == Reason("restart", "35 % of the time went by until replaced processes had caught up")
    assert said({"busy": 50, "wait_input": 40}, {"busy": 30}, slowest=1, lost=10.0).cause == "feed"


def test_what_is_in_no_share_is_the_filling_of_a_pipeline_and_the_snapshots_of_one_process() -> None:
    spent = ({"busy": 70, "wait_input": 10}, {"busy": 30})
    assert said(*spent, slowest=1) == Reason("fill", "20 % of the time went by until all stages had work: a short run")
    assert why(*spent, slowest=1, ended=False) is None, "a window is not exactly that of the rate"
    found = said({"busy": 70, "wait_input": 10}, slowest=1, runtime="serial", ended=False)
    assert found == Reason("snapshots", "snapshots and reports take 20 % of the time")


def test_one_process_has_no_links_and_no_stage_of_its_own() -> None:
    (waits, copies) = (
        said({"busy": 70, name: 30}, slowest=1, runtime="serial").sentence for name in ("wait_input", "copying")
    )
    assert waits == "the run waits for images 30 % of the time: raise data.workers (it is 0)"
    assert copies == "the run copies 30 % of the time"


def test_processes_with_several_stages_are_named_by_them() -> None:
    several = [
        ProcessTime(stages=(1, 2), busy=40, wait_input=0, wait_output=0, copying=60),
        ProcessTime(stages=(3, 4), busy=70, wait_input=30, wait_output=0, copying=0),
    ]
    found = reason_of(small_config(processes=2), several, 1, 100.0, 0.0, True)
    assert found is not None
    assert found.sentence.startswith("stages 3-4 wait 30 % of the time for stages 1-2, which copy 60 % of it")


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_who_computes_all_the_time_waits_for_nothing(seconds: float) -> None:
    assert reason_of(small_config(), times({"busy": seconds}), 0, seconds, 0.0, True) is None


def test_what_is_a_small_part_of_the_rest_explains_nothing() -> None:
    assert why({"busy": 60, "wait_input": 9}, slowest=1, ended=False) is None
    assert said({"busy": 60, "wait_input": 21, "copying": 19}, slowest=1).cause == "feed"
