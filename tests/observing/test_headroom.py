"""The three numbers of a run: measured, predicted, and the bound. All by hand, for eight images a step."""

from __future__ import annotations

from typing import Any

import pytest

from tests.observing.headrooms import even, phase
from tests.pipeline.small import small_config
from workers.observing.headroom import Headroom, headroom_in_words
from workers.observing.headroom_model import headroom_of, predicted_rate

UNIT = "images/s"
UNEVEN = [{"busy": 0.25}, {"busy": 0.5}, {"busy": 0.125}, {"busy": 0.125}]


def of(phases: list[Any], measured: float, **sections: Any) -> Headroom:
    found = headroom_of(small_config(**sections), phases, measured, ended=True)
    assert found is not None
    return found


def test_the_bound_is_what_the_slowest_stage_could_make_if_it_only_computed() -> None:
    found = of([phase(*UNEVEN)], measured=12.0)
    assert (found.bound, found.stages, found.share) == (16.0, (2,), 0.75)


def test_stages_that_share_a_process_are_added() -> None:
    found = of([phase(*UNEVEN)], measured=8.0, processes=2)
    assert found.bound == pytest.approx(8 / 0.75)
    assert found.stages == (1, 2)


def test_where_one_process_trains_all_stages_all_are_added_and_none_is_the_slowest() -> None:
    for how in ({"runtime": "serial"}, {"mode": "end_to_end"}):
        found = of([phase(*UNEVEN)], measured=8.0, **how)
        assert (found.bound, found.stages) == (8.0, ())
        assert predicted_rate(small_config(**how), [phase(*UNEVEN)]) == pytest.approx(8.0), "it waits for nobody"


def test_a_frozen_stage_that_takes_longest_is_the_bound() -> None:
    found = of([phase(*UNEVEN)], measured=8.0, stages={1: {"frozen": True}, 2: {"frozen": True}})
    assert (found.bound, found.stages) == (16.0, (2,))


def test_of_replicas_the_time_of_the_first_one_counts_whatever_the_feed_of_each_makes() -> None:
    parts = {"drop_last": True, "feed": "stages"}
    config = small_config(stages={1: {"replicas": 2}}, data=parts)
    steps = [phase(*UNEVEN, feed=4.0)]  # of the first one's rows: it makes half a batch in half the time
    found = headroom_of(config, steps, 8.0, ended=True)
    assert found is not None
    assert (found.bound, found.stages) == (16.0, (2,))
    assert predicted_rate(config, steps) == pytest.approx(8 / 2.0)


def test_in_mode_sequential_each_phase_has_a_slowest_stage_of_its_own() -> None:
    first, second = phase({"busy": 1.0}, steps=6), phase({"busy": 0.25}, {"busy": 0.5}, steps=4)
    found = of([first, second], measured=8.0, mode="sequential")
    assert found.bound == pytest.approx(10 * 8 / (6 * 1.0 + 4 * 0.5))
    assert found.stages == (1,), "that of the longest phase"
    assert of([first, second], measured=0.9 * found.bound, mode="sequential").cause == "fill"
    assert predicted_rate(small_config(mode="sequential"), [first, second]) == pytest.approx(found.bound)


def test_the_prediction_has_the_copies_and_the_feed_that_the_bound_leaves_out() -> None:
    copying = [{**stage, "copying": 0.125} for stage in UNEVEN]
    assert predicted_rate(small_config(), [phase(*UNEVEN)]) == pytest.approx(16.0)
    assert predicted_rate(small_config(), [phase(*copying)]) == pytest.approx(8 / 0.625)
    assert predicted_rate(small_config(data={"workers": 2}), [phase(*copying, feed=4.0)]) == pytest.approx(4.0)


def test_batches_that_are_smaller_now_and_then_count_with_the_images_that_they_have() -> None:
    found = predicted_rate(small_config(data={"batch_size": 16}), [phase(*UNEVEN)])
    assert found == pytest.approx(16.0), "eight images a step, of sixteen that a whole batch would have"


@pytest.mark.parametrize(("steps", "measured"), [([], 8.0), ([phase(*even(4, 0.0))], 8.0), ([phase(*UNEVEN)], 0.0)])
def test_nothing_is_said_where_nothing_is_known(steps: list[Any], measured: float) -> None:
    assert headroom_of(small_config(), steps, measured, ended=False) is None


def test_a_window_that_begins_in_the_midst_of_a_step_reaches_no_more_than_all() -> None:
    assert of([phase(*UNEVEN)], measured=17.0).share == 1.0


def test_near_the_bound_there_is_nothing_to_explain() -> None:
    waits = [{**stage, "wait_input": 0.1} for stage in UNEVEN]
    assert of([phase(*waits)], measured=15.2).reason == ""
    assert of([phase(*waits)], measured=15.1).cause == "feed"


def report(measured: float, bound: float, *stages: int, **more: Any) -> dict[str, Any]:
    return {"images_per_second": measured, "bound": {"images_per_second": bound, "stages": [*stages]}, **more}


def test_the_words_of_a_report() -> None:
    found = report(1420.4, 1466.2, 1, predicted={"images_per_second": 1440.0})
    (sentence,) = headroom_in_words(found)
    assert sentence == f"measured 1,420 {UNIT}, predicted 1,440; stage 1 alone would allow 1,466 (97 %)"
    found = report(1420.4, 2840.8, 1, 2)
    found["bound"]["reason"] = "they wait"
    assert headroom_in_words(found) == [
        f"measured 1,420 {UNIT}; stages 1-2 alone would allow 2,841 (50 %)",
        "they wait",
    ]
    assert headroom_in_words(report(0.5, 2.0)) == [f"measured 0.5 {UNIT}; computing alone would allow 2 (25 %)"]


@pytest.mark.parametrize(
    "report",
    [{}, {"bound": None, "images_per_second": 1.0}, {"bound": {}, "images_per_second": 1.0},
     {"bound": {"images_per_second": 1.0}}, {"bound": {"images_per_second": "x"}, "images_per_second": 1.0}],
)  # fmt: skip
def test_a_report_without_has_no_words(report: dict[str, Any]) -> None:
    assert headroom_in_words(report) == []


def test_what_is_written_is_read() -> None:
    found = Headroom(measured=8.0, predicted=9.0, bound=16.0, stages=(2,), cause="feed", reason="it waits")
    values = found.to_json()
    assert (values["bound"]["share"], values["bound"]["cause"]) == (0.5, "feed")
    words = headroom_in_words({"images_per_second": found.measured, **values})
    assert words == [f"measured 8 {UNIT}, predicted 9; stage 2 alone would allow 16 (50 %)", "it waits"]
    nothing = Headroom(measured=8.0, predicted=None, bound=8.0, stages=(2,), cause=None, reason="").to_json()
    assert (list(nothing), sorted(nothing["bound"])) == (["bound"], sorted({*values["bound"]} - {"cause", "reason"}))
