"""The digests that a run has recorded, and the first in which two sides differ."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass

from workers.observing.history_file import each_step
from workers.run.files import RunDir

WHAT = ("input", "loss", "gradient", "weights")
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
        before = WHAT[: WHAT.index(self.what)]
        equal = f" ({' and '.join(before)} {'are' if len(before) > 1 else 'is'} equal)" if before else ""
        return f"step {self.step}, stage {self.stage}: {self.what}{equal}"


def digests_of(run: RunDir, first: int = 0, last: int | None = None) -> dict[int, dict[int, dict[str, str]]]:
    """Those of the steps from `first`, counted from 0, to the one before `last`; of the last attempt at each.

    Raises:
        UserError: `metrics.jsonl` is missing or damaged.
    """
    found: dict[int, dict[int, dict[str, str]]] = {}
    for line in each_step(run.metrics, []):
        step = line["step"]
        if step < first or (last is not None and step >= last):
            continue
        stages = {stage["stage"]: _digests(stage.get("digests")) for stage in line["stages"]}
        if any(stages.values()):
            found[step] = {stage: digests for stage, digests in stages.items() if digests}
    return found


def _digests(value: object) -> dict[str, str]:
    values = value if isinstance(value, dict) else {}
    return {str(k): v for k, v in values.items() if isinstance(v, str) and _FORM.fullmatch(v)}


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
            what = next((what for what in WHAT if one.get(what) != other.get(what)), None)
            if what is not None:
                return Difference(step, stage, what)
    return None
