"""Whether steps that are done again have the digests that they had (`digests.every`): a run repeats what was not in its
last snapshot, and so does a stage that comes back alone. Nothing is lost if not, but one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pipeline.errors import UserError
from workers.observing.history_file import each_step
from workers.run.files import RunDir, read_object, write_json

Digests = Mapping[Any, str]
CHAIN = "chain"
"""Of all steps until then, so that it says nothing of one step."""


class RepeatedSteps:
    """Compares; on one thread, but for `committed`.

    Args:
        run: that may have done some of its steps before.
        start_step: the first step that it does now.
        remember: whether stages may come back alone (`restart: stage`).
        differs: is told stage, step and a sentence; once for a stage, and not for those that got what is told already.
    """

    def __init__(
        self, run: RunDir, start_step: int, remember: bool, differs: Callable[[int, int, str], object]
    ) -> None:
        self._file, self._remember, self._differs = run.repeated, remember, differs
        self._earlier = {place: found for place, found in _kept(run).items() if place[0] >= start_step}
        self._now = dict[tuple[int, int], Digests]()
        self._told = set[int]()
        self._committed = self._dropped = start_step

    def reported(self, stage: int, step: int, digests: Digests) -> None:
        """A stage has done a step, perhaps again; nothing where it was not recorded."""
        if not digests:
            return
        if self._dropped < (committed := self._committed):
            self._now = {place: found for place, found in self._now.items() if place[0] >= committed}
            self._dropped = committed
        earlier, now = self._earlier.pop((step, stage), None), self._now.get((step, stage))
        if now is not None:
            self._compare(stage, step, now, digests, ". The stages after it went on with the first bits")
        elif earlier is not None:
            self._compare(stage, step, earlier, digests)
        if earlier is not None and not self._earlier:  # all were compared
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
        if self._remember:
            self._now[step, stage] = digests

    def committed(self, steps: int) -> None:
        """Steps before this one are not done again; may be called from any thread."""
        self._committed = steps

    def _compare(self, stage: int, step: int, before: Digests, now: Digests, more: str = "") -> None:
        other = [name for name in {**before, **now} if name != CHAIN and before.get(name) != now.get(name)]
        if not other or stage in self._told or (other[0] == "input" and any(told < stage for told in self._told)):
            return
        self._told.add(stage)
        self._differs(
            stage,
            step,
            f"stage {stage} has done step {step} again and got other bits than before: its {other[0]} differs first "
            "(digests). A machine has gone bad, now or then, or it was another version or device; 'onward verify "
            f"--from {step}' computes it once more{more}",
        )


def keep_digests(run: RunDir, steps: int) -> None:
    """Keep the digests of the steps after so many, whose lines are about to be dropped. Raises `OSError`."""
    found = _kept(run)
    with suppress(UserError):  # there is no file, or it is damaged from there on
        for line in each_step(run.metrics, []):
            found |= {(line["step"], each["stage"]): each["digests"] for each in line["stages"] if "digests" in each}
    kept = [[*place, digests] for place, digests in found.items() if place[0] >= steps]
    if kept:
        write_json(run.repeated, {"digests": kept})
    else:
        run.repeated.unlink(missing_ok=True)


def _kept(run: RunDir) -> dict[tuple[int, int], Digests]:
    """By step and stage; nothing where the file is not what `keep_digests` writes."""
    with suppress(OSError, TypeError, ValueError):
        held = (read_object(run.repeated) or {}).get("digests", [])
        return {(int(step), int(stage)): dict(digests) for step, stage, digests in held}
    return {}
