"""What a plan does beside the search: it gives up where nothing is found to fit."""

from __future__ import annotations

import pytest

from launch.partition import planning
from launch.partition.costs import StageCut
from launch.partition.planning import OutOfPatience, patient

CUT = (StageCut(stage=1, first=0, last=0),)


def test_patience_ends_where_nothing_was_found_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PATIENCE", -1.0)
    with pytest.raises(OutOfPatience):
        patient(lambda cuts: None)(CUT)


def test_what_fits_is_passed_on() -> None:
    answers = iter([None, CUT, None])
    fits = patient(lambda cuts: next(answers))
    assert [fits(CUT) for _ in range(3)] == [None, CUT, None]
