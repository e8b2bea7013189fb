"""`onward bisect RUN_A RUN_B`: the first step and stage at which two runs part, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from launch.commands.verify import config_here
from launch.prepare.data_index import data_difference
from launch.prepare.run_dir import read_config
from launch.results.printing import command_console
from launch.verifying.bisection import (
    Bisection,
    RecordedAt,
    Side,
    Sides,
    difference_at,
    first_that_differs,
    places_of,
    same_at,
    states_at,
)
from launch.verifying.circumstances import Circumstances, edited, other_circumstances, other_keys
from launch.verifying.intervals import Interval
from launch.verifying.recomputation import Rerun, runtime_of
from launch.verifying.recorded import Digests, digests_of, first_difference
from pipeline.config import Config
from pipeline.errors import UserError
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.run.files import RunDir


def bisect_runs(
    one: Path, other: Path, recompute: bool = False, trusted: bool = False, console: Console | None = None
) -> Bisection:
    """Find where two runs part, in what they have recorded; both stay as they are.

    Args:
        one, other: directories that `onward train` wrote.
        recompute: compute the steps between the last place that is equal and the first that differs again, for both.
        trusted: then import and call what their configurations name, although they are another user's files.
        console: for the progress; None for none.

    Raises:
        UserError: one is no run, they have other stages, or nothing that both have recorded.
        ConfigError, TrainingError: what is to be computed again cannot be.
    """
    configs = read_config(one), read_config(other)
    runs = RunDir(one), RunDir(other)
    if configs[0].num_stages != configs[1].num_stages:
        raise UserError(
            f"'{one}' has {configs[0].num_stages} stages and '{other}' has {configs[1].num_stages}. Give two runs of "
            "the same stages"
        )
    stages = tuple(range(1, configs[0].num_stages + 1))
    sides = Side.of(runs[0]), Side.of(runs[1])
    found = _in_records(sides, stages, anyway=recompute)
    found = replace(found, why=_why(runs, configs, found.equal))
    if not recompute or not found.parted or found.exact:
        return found
    return _computed(found, sides, stages, trusted, console or command_console(quiet=True))


def _in_records(sides: Sides, stages: Sequence[int], anyway: bool) -> Bisection:
    paths = sides[0].run.path, sides[1].run.path
    places = places_of(sides)
    if not places and not anyway:
        raise UserError(
            f"nothing was recorded after as many steps of both: {sides[0]}, {sides[1]}. With --recompute both are "
            "computed again from their beginning"
        )
    if not places:
        return Bisection(paths, 0, places=0, differs=RecordedAt(min(side.done for side in sides), True))
    first = first_that_differs(places, lambda place: same_at(sides, place, stages))
    equal = places[first - 1].steps if first else 0
    found = Bisection(paths, equal, places=len(places))
    if first == len(places):
        return found
    at = places[first]
    return replace(
        found,
        differs=at,
        difference=None if at.state else difference_at(sides, at, stages),
        tensors=tuple(states_at(sides, at.steps, stages)) if RecordedAt(at.steps, True) in places else (),
    )


def _why(runs: tuple[RunDir, RunDir], configs: tuple[Config, Config], equal: int) -> tuple[str, ...]:
    data = data_difference(*runs)
    circumstances = other_circumstances(*(Circumstances.of(run, equal) for run in runs))
    images = [] if data is None else [f"the images: {data}"]
    return (*other_keys(*configs), *circumstances, *images, *filter(None, map(edited, runs)))


def _computed(found: Bisection, sides: Sides, stages: Sequence[int], trusted: bool, console: Console) -> Bisection:
    """The same, and the first step that differs when both are computed again from a snapshot before it."""
    assert found.differs is not None
    last, again, begun = found.differs.steps, list[Digests](), list[int]()
    with ExitStack() as stack, ProgressLine(console) as line:
        for side in sides:
            run = side.run
            first = max((n for n, state in side.states.items() if n <= found.equal and state != run.final), default=0)
            config = config_here(run.path, (), trusted)
            rerun = Rerun(
                run,
                config,
                runtime=runtime_of(config),
                trusted=trusted,
                progress=lambda done, count, run=run: line.show(f"computing steps of {run.path} again", done, count),  # type: ignore[misc]
            )
            folder = stack.enter_context(rerun.computed(Interval(first, last, None), 1))
            again.append(digests_of(folder, first, last))
            begun.append(first)
    difference, computed = first_difference(again[0], again[1], stages), (min(begun), last)
    if difference is None:
        return replace(found, computed=computed, repeats=False)
    return replace(found, equal=difference.step, difference=difference, computed=computed)
