"""Where two runs part: the first place at which what they have recorded differs, found by halving what is between.

    steps done     10      20      30      40      50
    run A           =       =       =       x       x        x: digests, or a snapshot, that differ from those of B
    looked at               2nd     1st     3rd

Both have to have recorded something after as many steps: digests of the same step (`digests.every`), a snapshot, or
the trained weights. Digests are chained, so two runs that are equal at one place were equal at all before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from launch.verifying.intervals import states_of, steps_done
from launch.verifying.recorded import Difference, Digests, digests_of, first_difference
from launch.verifying.tensors import StateDifference, compare_states
from workers.run.files import RunDir, relative_to_cwd
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


@dataclass(frozen=True)
class Side:
    """What one of the two runs has recorded.

    Args:
        run: its directory.
        done: steps that it has done.
        digests: of its steps.
        states: by the steps before them, folders with the files of all stages.
    """

    run: RunDir
    done: int
    digests: Digests
    states: Mapping[int, Path]

    @classmethod
    def of(cls, run: RunDir) -> Side:
        """Read it; raises `UserError` where the run has done no step."""
        return cls(run, steps_done(run), digests_of(run), states_of(run))

    def __str__(self) -> str:
        shown = ", ".join(map(str, sorted(self.states)[:4]))
        kept = f"its state after {shown} steps" if self.states else "kept no state"
        digests = f"digests of {len(self.digests)} steps" if self.digests else "no digests"
        return f"'{self.run.path}' has {kept} and {digests}"


Sides = tuple[Side, Side]


def places_of(sides: Sides) -> list[RecordedAt]:
    """All that both have recorded, in order; empty if there is nothing."""
    one, other = sides
    found = [RecordedAt(step + 1, False) for step in one.digests.keys() & other.digests.keys()]
    return sorted([*found, *(RecordedAt(steps, True) for steps in one.states.keys() & other.states.keys())])


def first_that_differs(places: Sequence[RecordedAt], same: Callable[[RecordedAt], bool]) -> int:
    """The number of the first place that is not the same, by asking at about log2 of them; `len(places)` if none."""
    return bisect_left(places, True, key=lambda place: not same(place))


def same_at(sides: Sides, place: RecordedAt, stages: Sequence[int]) -> bool:
    """Whether the two are equal at a place: by digests; or by those of the files, and only then by every tensor."""
    if place.state:
        return not any(state.differs for state in states_at(sides, place.steps, stages))
    return difference_at(sides, place, stages) is None


def difference_at(sides: Sides, place: RecordedAt, stages: Sequence[int]) -> Difference | None:
    """The first digest that differs at a place of digests."""
    one, other = ({place.steps - 1: side.digests[place.steps - 1]} for side in sides)
    return first_difference(one, other, stages)


def states_at(sides: Sides, steps: int, stages: Sequence[int]) -> list[StateDifference]:
    """How the states of the two differ after as many steps; files that are equal are not opened."""
    one, other = (side.states[steps] for side in sides)
    digests = [_digests_of_files(folder) for folder in (one, other)]
    unlike = [k for k in stages if digests[0].get(k) is None or digests[0].get(k) != digests[1].get(k)]
    found = (compare_states(one, other, stage, sides[0].run.path, sides[1].run.path) for stage in unlike)
    return [state for state in found if state is not None]


def _digests_of_files(folder: Path) -> dict[int, str]:
    if not (folder / MANIFEST).is_file():
        return {}
    return {stage: part.sha256 for stage, part in read_manifest(folder).stages.items()}
