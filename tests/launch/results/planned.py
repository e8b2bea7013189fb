"""Findings of a plan, made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launch.partition.findings import PlanFindings, SettingFindings, StageFindings

GIB = 2**30
RATE = "images/s"
"""Of a model: no clock is read for it."""


def stage(number: int, **others: Any) -> StageFindings:
    """A stage that is busy half of the time, on a device of its own."""
    first = StageFindings(
        stage=number,
        units=(f"layer{number}.0", f"layer{number}.1"),
        devices=(f"cuda:{number - 1}",),
        recompute="none",
        chunk=None,
        needs=10 * GIB,
        has=80 * GIB,
        seconds=0.25,
        end=0.05,
        busy=0.5,
        wait_input=0.5,
        wait_output=0.0,
        copying=0.0,
        carried=2e9,
    )
    return replace(first, **others)


def setting(*stages: StageFindings, **others: Any) -> SettingFindings:
    """On a GPU for each stage, of which the first bounds it."""
    first = SettingFindings(
        config={"data": {"batch_size": 512, "workers": 4}, "link": {"codec": "none"}, "precision": {"dtype": "fp32"}},
        devices=len(stages),
        link="queue",
        stages=stages,
        images_per_second=1000.0,
        bound=1024.0,
        fill=2.0,
        limit="stage",
        limiting="stage 1",
        feed=4000.0,
        full=(),
    )
    return replace(first, **others)


def findings(plan: SettingFindings, now: SettingFindings | None = None, **others: Any) -> PlanFindings:
    """A plan on h100s, beside the run as it is, which makes half as many images a second."""
    first = PlanFindings(
        device="h100",
        estimated=True,
        plan=plan,
        now=now or replace(plan, images_per_second=plan.images_per_second / 2),
        more=None,
        free=None,
        roomy=None,
        fed=None,
        seconds=3.0,
    )
    return replace(first, **others)
