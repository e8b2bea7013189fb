"""The time of a stage follows from its units, its end and its replicas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.partition.costs import Costs, EndCost, LinkCost, StageCut, UnitCost, seconds_of

LINK = LinkCost(sending=0.0, receiving=0.0, message=0.0, bandwidth=float("inf"), latency=0.0)
UNIT = UnitCost(
    unit="a", forward=1.0, backward=4.0, input_gradient=2.0, step=8.0, parameters=16, kept=32, output=64
)  # fmt: skip
END = EndCost(forward=0.25, backward=0.5, step=100.0, loss=1000.0, parameters=4, kept=8)
COSTS = Costs(
    device="abacus", estimated=True, batch=4, units=(UNIT, replace(UNIT, unit="b")), ends={(1, 0): END, (1, 1): END},
    within=LINK, across=LINK, summing=0.0, feed=0.0, memory=2**30,
)  # fmt: skip


def test_the_first_unit_of_a_stage_has_no_gradient_of_its_input() -> None:
    one, two = (seconds_of(COSTS, StageCut(stage=1, first=0, last=last)) for last in (0, 1))
    assert one.forward == 4 * 1.0
    assert one.update == 4 * (0.25 + 0.5 + 4.0 - 2.0) + 8.0 + 100.0 + 4 * 1000.0
    assert two.compute - one.compute == 4 * (1.0 + 4.0) + 8.0


def test_replicas_share_what_is_counted_by_image_and_repeat_the_rest() -> None:
    alone, shared = (seconds_of(COSTS, StageCut(stage=1, first=0, last=1, replicas=count)) for count in (1, 4))
    fixed = 2 * 8.0 + 100.0 + 4 * 1000.0
    assert alone.forward == 4 * shared.forward
    assert alone.update - fixed == 4 * (shared.update - fixed)
    summed = seconds_of(replace(COSTS, summing=0.5), StageCut(stage=1, first=0, last=1, replicas=4))
    assert summed.update - shared.update == 0.5 * (2 * 16 + 4)


@pytest.mark.parametrize(("recompute", "again"), [("none", 0.0), ("units", 8.0), ("views", 9.0)])
def test_what_is_computed_again_is_added_to_the_update(recompute: str, again: float) -> None:
    kept = seconds_of(COSTS, StageCut(stage=1, first=0, last=1))
    less = seconds_of(COSTS, StageCut(stage=1, first=0, last=1, recompute=recompute))  # type: ignore[arg-type]
    assert less.forward == kept.forward
    assert less.update - kept.update == again


def test_a_stage_with_settings_of_its_own_has_costs_of_its_own() -> None:
    slow = replace(COSTS, of_stages={2: (UNIT, replace(UNIT, forward=3.0))}, ends={**COSTS.ends, (2, 1): END})
    assert slow.units_of(1) == COSTS.units
    usual, own = (seconds_of(slow, StageCut(stage=stage, first=1, last=1)) for stage in (1, 2))
    assert (usual.forward, own.forward) == (4 * 1.0, 4 * 3.0)
