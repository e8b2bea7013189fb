"""`onward verify RUN`: computes steps of a run again from a snapshot, and compares what it has recorded of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from math import gcd
from pathlib import Path

from launch.prepare.config_differences import is_free
from launch.prepare.data_index import check_data
from launch.prepare.run_dir import read_config
from launch.results.printing import command_console
from launch.verifying.circumstances import Circumstances, other_circumstances, other_keys
from launch.verifying.intervals import Interval, intervals_of
from launch.verifying.recomputation import Recomputation, Runtime
from launch.verifying.recorded import Difference, digests_of, first_difference
from launch.verifying.tensors import StateDifference, compare_states
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import LoadOptions, load_config
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.run.files import RunDir, relative_to_cwd


@dataclass(frozen=True)
class Question:
    """What is to be verified.

    Args:
        first, last: numbers of steps, from which and to which; see `intervals_of`.
        stage: only this one is compared, from 1; all if None.
        runtime: how it is computed again; if None, in one process where that gives the same bits.
        close: compare the state at the end of each interval and no bits, and accept this distance: the 2-norm of the
            difference of all tensors of a stage as a share of their own.
    """

    first: int | None = None
    last: int | None = None
    stage: int | None = None
    runtime: Runtime | None = None
    close: float | None = None


@dataclass(frozen=True)
class Verification:
    """What was found.

    Args:
        run: its directory.
        first, last: numbers of steps, from which and to which it was computed again.
        stages: that were compared.
        recorded: steps whose digests were compared.
        states: numbers of steps after which the state was compared, tensor by tensor.
        difference: the first digest that differs; None if none does.
        tensors: how the state of every stage differs, or with `close` how far it is, after `states[-1]` steps.
        close: the distance that is accepted; None where every bit counts.
        circumstances: what may give other bits by right.
        keys: of the configuration that differ from those of the run, here.
    """

    run: Path
    first: int
    last: int
    stages: tuple[int, ...]
    _: KW_ONLY
    recorded: int
    states: tuple[int, ...]
    difference: Difference | None
    tensors: tuple[StateDifference, ...]
    close: float | None
    circumstances: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every bit is the same; with `close`, whether every stage is close enough."""
        return self.difference is None and not any(_is_other(state, self.close) for state in self.tensors)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        name, steps = relative_to_cwd(self.run), f"steps {self.first} to {self.last}"
        compared = [f"the digests of {self.recorded} step{'s' * (self.recorded != 1)}"] if self.recorded else []
        if self.states:
            compared.append(f"every tensor after {' and '.join(map(str, self.states))} steps")
        if self.close is not None:
            far = ", ".join(f"stage {state.stage} {state.distance:.1e}" for state in self.tensors)
            word = "as close as was asked for" if self.equal else "NOT as close as was asked for"
            line = f"{steps} of {name}, computed again, are {word} (distance {self.close:g}): {far}"
            return [line] if self.equal else [line, *self._why()]
        who = "all stages" if len(self.stages) != 1 else f"stage {self.stages[0]}"
        if self.equal:
            return [f"{steps} of {name}, computed again, are equal to the bit: {' and '.join(compared)}, {who}"]
        lines = [f"{steps} of {name}, computed again, DIFFER"]
        if self.difference is not None:
            lines.append(f"first at {self.difference}")
        lines += [f"after {self.states[-1]} steps, {state}" for state in self.tensors if state.differs]
        return [*lines, *self._why()]

    def _why(self) -> list[str]:
        lines = [f"not the same here: {'; '.join(self.keys)}"] if self.keys else []
        if self.circumstances:
            lines.append(f"other bits may be right, since this differs: {'; '.join(self.circumstances)}")
            if self.close is None:
                lines.append("--close 0.001 asks instead whether the weights are as close as rounding leaves them")
        else:
            lines.append("versions, processor, devices and modules are those that it was trained with")
        return lines


def verify_run(
    run_dir: Path,
    question: Question,
    overrides: Sequence[str] = (),
    trusted: bool = False,
    console: Console | None = None,
) -> Verification:
    """Compute steps of a run again and compare; the run stays as it is.

    Args:
        run_dir: what `onward train` wrote.
        question: what is to be verified.
        overrides: `KEY=VALUE` of where and how it is computed here, such as `device` or `data.root`.
        trusted: import and call what its configuration names, although it is another user's file.
        console: for the progress; None for none.

    Raises:
        ConfigError, UserError: there is nothing to begin with or to compare, or it cannot be computed here.
        TrainingError: computing it again failed.
    """
    trained, run = read_config(run_dir), RunDir(run_dir)
    config = _config(run_dir, overrides, trusted)
    stages = _stages(config, question.stage)
    intervals = intervals_of(run, question.first, question.last)
    recorded = {} if question.close is not None else digests_of(run, intervals[0].first, intervals[-1].last)
    _check_comparable(run, intervals, recorded, question.close)
    check_data(Splits(config.data), run)
    replicas = any(config.replicas_of(index) > 1 for index in range(1, config.num_stages + 1))
    runtime: Runtime = question.runtime or ("pipelined" if replicas else "serial")
    with ProgressLine(console or command_console(quiet=True)) as line:
        recomputation = Recomputation(
            run,
            config,
            runtime=runtime,
            trusted=trusted,
            progress=lambda done, count: line.show(f"computing steps of {run_dir} again", done, count),
        )
        return _compared(run, trained, recomputation, intervals, recorded, stages, question.close)


def _compared(
    run: RunDir,
    trained: Config,
    recomputation: Recomputation,
    intervals: Sequence[Interval],
    recorded: dict[int, dict[int, dict[str, str]]],
    stages: tuple[int, ...],
    close: float | None,
) -> Verification:
    """Interval after interval, until one differs."""
    count, states, difference = 0, list[int](), None
    tensors: tuple[StateDifference, ...] = ()
    circumstances: list[str] = []
    for interval in intervals:
        there = {step: found for step, found in recorded.items() if interval.first <= step < interval.last}
        every = gcd(*(step + 1 for step in there))
        with recomputation.computed(interval, every) as again:
            here = digests_of(again, interval.first, interval.last)
            difference = first_difference(there, here, stages)
            count += len(there.keys() & here.keys())
            if interval.state is not None:
                tensors = _states(run, interval, again, stages)
                states.append(interval.last)
            circumstances = other_circumstances(
                Circumstances.of(run, interval.first), Circumstances.of(again, interval.first)
            )
            keys = other_keys(
                trained, read_config(again.path).model_copy(update={"train": trained.train, "link": trained.link})
            )
        if difference is not None or any(_is_other(state, close) for state in tensors):
            break
    return Verification(
        run.path,
        intervals[0].first,
        interval.last,
        stages,
        recorded=count,
        states=tuple(states),
        difference=difference,
        tensors=tensors,
        close=close,
        circumstances=tuple(circumstances),
        keys=tuple(keys),
    )


def _is_other(state: StateDifference, close: float | None) -> bool:
    return state.differs if close is None else state.distance > close


def _states(run: RunDir, interval: Interval, again: RunDir, stages: Sequence[int]) -> tuple[StateDifference, ...]:
    assert interval.state is not None
    here = again.snapshot(interval.last)
    found = (compare_states(interval.state, here, stage, run.path, again.path) for stage in stages)
    return tuple(state for state in found if state is not None)


def _config(run_dir: Path, overrides: Sequence[str], trusted: bool) -> Config:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not is_free(key):
            problem = "decides the numbers, which are to be those of the run"
            raise ConfigError(key, problem, "Give where and how it is computed here, such as device or data.root")
    return load_config(RunDir(run_dir).config, overrides, LoadOptions(trusted=trusted, run=run_dir))


def _stages(config: Config, stage: int | None) -> tuple[int, ...]:
    every = tuple(range(1, config.num_stages + 1))
    if stage is not None and stage not in every:
        raise UserError(f"--stage: there is no stage {stage}. Give one from 1 to {config.num_stages}")
    return every if stage is None else (stage,)


def _check_comparable(
    run: RunDir, intervals: Sequence[Interval], recorded: Collection[int], close: float | None
) -> None:
    """Raises where an interval has neither digests nor a state at its end; only the last one may have none."""
    last = intervals[-1]
    if last.state is not None or any(last.first <= step < last.last for step in recorded):
        return
    what = "--close compares the state of the stages, and the run" if close is not None else f"'{run.path}'"
    none = "" if close is not None else f"recorded no digests of steps {last.first} to {last.last}, and "
    kept = f"--to {last.first}" if last.first else "another --to"
    raise UserError(
        f"{what} {none}has kept no state after {last.last} steps. Give {kept}, after which there is a snapshot; "
        "digests.every lets a run record digests"
    )
