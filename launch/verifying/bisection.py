"""Where two runs part: the first place at which what they have recorded differs, found by halving what is between.

    steps done     10      20      30      40      50
    run A           =       =       =       x       x        x: digests, or a snapshot, that differ from those of B
    looked at               2nd     1st     3rd

Both have to have recorded something after as many steps: digests of the same step (`digests.every`), a snapshot, or
the trained weights. Digests are chained, so two runs that are equal at one place were equal at all before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from launch.verifying.recorded import Difference, Digests, first_difference
from launch.verifying.tensors import StateDifference, compare_states
from pipeline.errors import UserError
from workers.observing.history_file import first_and_last_step
from workers.run.files import RunDir, read_report, relative_to_cwd, step_numbers
from workers.snapshots.manifest import MANIFEST, read_manifest


@dataclass(frozen=True, order=True)
class RecordedAt:
    """Something that both runs have recorded.

    Args:
        steps: that were done.
        state: after them; otherwise digests of the last of them, which say more and are looked at first.
    """

    steps: int
    state: bool


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Args:
        runs: their directories.
        equal: steps until which they are equal to the bit; 0 where they part before anything that both have recorded.
        places: at which something could be compared.
        differs: the first place that differs; None if none does.
        difference: the first digest that differs there.
        tensors: how the state differs there, for every stage.
        computed: steps that were computed again to find the step, `first` and `last`; None if none were.
        repeats: whether they then differed, too.
        why: what differs between the two: keys, versions, processors, devices, images.
    """

    runs: tuple[Path, Path]
    equal: int
    _: KW_ONLY
    places: int
    differs: RecordedAt | None = None
    difference: Difference | None = None
    tensors: tuple[StateDifference, ...] = ()
    computed: tuple[int, int] | None = None
    repeats: bool = True
    why: tuple[str, ...] = ()

    @property
    def parted(self) -> bool:
        """Whether the two differ anywhere."""
        return self.differs is not None

    @property
    def exact(self) -> bool:
        """Whether the first step that differs is known, and not only two between which it is."""
        return self.difference is not None and self.difference.step == self.equal

    def __str__(self) -> str:
        one, other = (str(relative_to_cwd(run)) for run in self.runs)
        if self.differs is None:
            return f"{one} and {other} are equal to the bit until {self.equal} steps, the last that both have recorded"
        lines = [self._first(one, other)]
        lines += [f"after {self.differs.steps} steps, {state}" for state in self.tensors if state.differs]
        if self.computed and not self.repeats:
            lines.append(
                f"computed again here, steps {self.computed[0]} to {self.computed[1]} of both are equal: it was the "
                "machine of one of them, and 'onward verify' of each says which"
            )
        elif not self.exact:
            lines.append("--recompute computes these steps of both again, and names the first")
        lines.append(f"not the same in both: {'; '.join(self.why)}" if self.why else "nothing else differs")
        return "\n".join(lines)

    def _first(self, one: str, other: str) -> str:
        if self.difference is not None and self.exact:
            return f"{one} and {other} part at {self.difference}"
        assert self.differs is not None
        line = f"{one} and {other} part between steps {self.equal} and {self.differs.steps - 1}"
        return f"{line}; first recorded at {self.difference}" if self.difference else line


def places_of(runs: tuple[RunDir, RunDir], recorded: tuple[Digests, Digests]) -> list[RecordedAt]:
    """All that both have recorded, in order.

    Raises:
        UserError: there is nothing.
    """
    states = [set(states_of(run)) for run in runs]
    found = [RecordedAt(step + 1, False) for step in recorded[0].keys() & recorded[1].keys()]
    found += [RecordedAt(steps, True) for steps in states[0] & states[1]]
    if not found:
        one, other = (
            f"'{run.path}' has {_kept_by(kept, own)}" for run, kept, own in zip(runs, states, recorded, strict=True)
        )
        raise UserError(
            f"nothing was recorded after as many steps of both: {one}, {other}. With --recompute both are computed "
            "again from their beginning"
        )
    return sorted(found)


def _kept_by(states: set[int], recorded: Digests) -> str:
    """What a run has recorded, in words."""
    kept = f"its state after {', '.join(map(str, sorted(states)[:4]))} steps" if states else "kept no state"
    return f"{kept} and {f'digests of {len(recorded)} steps' if recorded else 'no digests'}"


def states_of(run: RunDir) -> dict[int, Path]:
    """By the steps that were done, the folder with the files of all stages."""
    found = {n: run.snapshot(n) for n in step_numbers(run) if (run.snapshot(n) / MANIFEST).is_file()}
    lines = first_and_last_step(run.metrics) if run.metrics.is_file() else None
    if lines is not None and run.stage(1).is_file() and "final_digest" in (read_report(run) or {}):
        found.setdefault(int(lines[1]["step"]) + 1, run.final)
    return found


def first_that_differs(places: list[RecordedAt], same: Callable[[RecordedAt], bool]) -> int:
    """The number of the first place that is not the same, by asking at about log2 of them; `len(places)` if none."""
    return bisect_left(places, True, key=lambda place: not same(place))


def same_at(
    runs: tuple[RunDir, RunDir], recorded: tuple[Digests, Digests], stages: tuple[int, ...]
) -> Callable[[RecordedAt], bool]:
    """Whether the two are equal at a place: by digests; or by those of the files, and only then by every tensor."""

    def same(place: RecordedAt) -> bool:
        if place.state:
            return not any(state.differs for state in states_at(runs, place.steps, stages))
        return difference_at(recorded, place, stages) is None

    return same


def difference_at(recorded: tuple[Digests, Digests], place: RecordedAt, stages: tuple[int, ...]) -> Difference | None:
    """The first digest that differs at a place of digests."""
    one, other = ({place.steps - 1: own[place.steps - 1]} for own in recorded)
    return first_difference(one, other, stages)


def states_at(runs: tuple[RunDir, RunDir], steps: int, stages: tuple[int, ...]) -> list[StateDifference]:
    """How the states of two runs differ after as many steps; files that are equal are not opened."""
    one, other = (states_of(run)[steps] for run in runs)
    digests = [_digests_of_files(folder) for folder in (one, other)]
    unlike = [k for k in stages if digests[0].get(k) is None or digests[0].get(k) != digests[1].get(k)]
    found = (compare_states(one, other, stage, runs[0].path, runs[1].path) for stage in unlike)
    return [state for state in found if state is not None]


def _digests_of_files(folder: Path) -> dict[int, str]:
    if not (folder / MANIFEST).is_file():
        return {}
    return {stage: part.sha256 for stage, part in read_manifest(folder).stages.items()}
