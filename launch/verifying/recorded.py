"""The digests that a run has recorded, and the first in which two sides differ."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers.observing.amounts import finite
from workers.observing.history_file import each_step
from workers.run.files import RunDir

DIGESTED = ("input", "loss", "gradient", "weights")
"""In the order in which a step computes them; those of `pipeline.stage.digests`, which needs torch."""
Digests = Mapping[int, Mapping[int, Mapping[str, str]]]
"""By step, stage and name."""
_FORM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Difference:
    """The first thing in which two sides differ.

    Args:
        step: counted from 0.
        stage: counted from 1.
        what: `input`, `loss`, `gradient` or `weights`.
    """

    step: int
    stage: int
    what: str

    def __str__(self) -> str:
        before = DIGESTED[: DIGESTED.index(self.what)]
        names = " and ".join(filter(None, (", ".join(before[:-1]), *before[-1:])))
        equal = f" ({names} {'are' if len(before) > 1 else 'is'} equal)" if before else ""
        return f"step {self.step}, stage {self.stage}: {self.what}{equal}"


def digests_of(run: RunDir, first: int = 0, last: int | None = None) -> dict[int, dict[int, dict[str, str]]]:
    """Those of the steps from `first`, counted from 0, to the one before `last`; of the last attempt at each.

    Raises:
        UserError: `metrics.jsonl` is damaged; where it is missing there are none.
    """
    found: dict[int, dict[int, dict[str, str]]] = {}
    for line in _lines(run):
        step = line["step"]
        if step < first or (last is not None and step >= last):
            continue
        stages = {stage["stage"]: _digests(stage.get("digests")) for stage in line["stages"]}
        if any(stages.values()):
            found[step] = {stage: digests for stage, digests in stages.items() if digests}
    return found


def loss_of(run: RunDir, step: int, stage: int) -> float | None:
    """The loss of a step that a run has recorded; None where it has none that is finite. Raises as `digests_of`."""
    found = [s for line in _lines(run) if line["step"] == step for s in line["stages"] if s["stage"] == stage]
    return finite(found[-1].get("loss")) if found else None


def _lines(run: RunDir) -> Iterator[dict[str, Any]]:
    return each_step(run.metrics, []) if run.metrics.is_file() else iter(())


def _digests(value: object) -> dict[str, str]:
    values = value if isinstance(value, dict) else {}
    return {str(k): v for k, v in values.items() if isinstance(v, str) and _FORM.fullmatch(v)}


MEASURES = ("loss", "gradient_norm", "update_norm")
"""Numbers of a stage's step that are near each other where two sides only round in another way."""


@dataclass(frozen=True)
class Closeness:
    """How near the numbers of one step are to each other on two sides, which begin it with the same weights.

    Args:
        step: counted from 0.
        gaps: by stage, the largest difference of loss, gradient norm and update norm, as a share of their size.
    """

    step: int
    gaps: Mapping[int, float]


def closeness(there: RunDir, here: RunDir, first: int, stages: Container[int]) -> Closeness | None:
    """Of the first step from `first` that both have a line of; None where there is none. Raises as `digests_of`."""
    lines = ((line["step"], line["stages"]) for line in _lines(there) if line["step"] >= first)
    again = {line["step"]: line["stages"] for line in _lines(here)}
    for step, found in lines:
        if step in again:
            other = {stage["stage"]: stage for stage in again[step]}
            gaps = {s["stage"]: _gap(s, other.get(s["stage"], {})) for s in found if s["stage"] in stages}
            return Closeness(step, gaps)
    return None


def _gap(one: Mapping[str, object], other: Mapping[str, object]) -> float:
    """A number that one side does not have is as far as can be, but for norms, which not every step measures."""
    gaps = [0.0]
    for name in MEASURES:
        mine, its = finite(one.get(name)), finite(other.get(name))
        if mine is not None and its is not None:
            gaps.append(abs(mine - its) / max(abs(mine), abs(its), 1e-30))
        elif name == "loss" and (mine, its) != (None, None):
            gaps.append(float("inf"))
    return max(gaps)


def first_difference(there: Digests, here: Digests, stages: Container[int]) -> Difference | None:
    """Of the steps that both have recorded, in the order of computation; None if all are equal.

    Args:
        there, here: two sides.
        stages: that are compared.
    """
    for step in sorted(there.keys() & here.keys()):
        for stage in sorted(there[step].keys() | here[step].keys()):
            if stage not in stages:
                continue
            one, other = there[step].get(stage, {}), here[step].get(stage, {})
            what = next((what for what in DIGESTED if one.get(what) != other.get(what)), None)
            if what is not None:
                return Difference(step, stage, what)
    return None
