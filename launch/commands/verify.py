"""`onward verify RUN`: computes steps of a run again from a snapshot, and compares what it has recorded of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from math import gcd
from pathlib import Path

from launch.prepare.config_differences import is_free
from launch.prepare.data_index import check_data
from launch.prepare.run_dir import read_config
from launch.results.printing import command_console
from launch.verifying.circumstances import (
    Circumstances,
    edited,
    given_otherwise,
    other_circumstances,
    other_keys,
    other_version,
)  # fmt: skip
from launch.verifying.intervals import Interval, intervals_of, states_of, steps_done
from launch.verifying.recomputation import Rerun, Runtime, runtime_of
from launch.verifying.recorded import Closeness, Digests, closeness, digests_of, first_difference
from launch.verifying.tensors import StateDifference, check_parts, compare_states
from launch.verifying.verification import Verification
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import LoadOptions, load_config
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.run.files import RunDir


@dataclass(frozen=True)
class Question:
    """What is to be verified.

    Args:
        first, last: numbers of steps, from which and to which; see `intervals_of`.
        stage: only this one is compared, from 1; all if None.
        runtime: how it is computed again; if None, in one process where that gives the same bits.
        whole: from the beginning to the last step that can be compared, instead of `first` and `last`.
        close: compare no bits: loss and norms of the first step of every interval, which begins with the weights of
            the run, may differ by such a share. Later steps come apart by rounding alone.
    """

    first: int | None = None
    last: int | None = None
    stage: int | None = None
    runtime: Runtime | None = None
    close: float | None = None
    _: KW_ONLY
    whole: bool = False


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
    config = config_here(run_dir, overrides, trusted)
    stages = _stages(config, question.stage)
    intervals = intervals_of(run, *_ends(run, question))
    recorded = digests_of(run, intervals[0].first, intervals[-1].last) if question.close is None else {}
    if question.close is None:
        _check_comparable(run, intervals[-1], recorded)
    for interval in intervals:
        if interval.state is not None:
            check_parts(interval.state, stages)
    check_data(Splits(config.data), run, "say where that is with data.root=FOLDER")
    with ProgressLine(console or command_console(quiet=True)) as line:
        recomputation = Rerun(
            run,
            config,
            runtime=question.runtime or runtime_of(config),
            trusted=trusted,
            progress=lambda done, count: line.show(f"computing steps of {run_dir} again", done, count),
        )
        begin, done = intervals[0].first, steps_done(run)
        found = Verification(run_dir, begin, begin, stages, close=question.close, edited=edited(run), done=done)
        for interval in intervals:
            found = _added(found, trained, recomputation, interval, recorded)
            if not found.equal:
                break
        return found


def _added(
    found: Verification, trained: Config, recomputation: Rerun, interval: Interval, recorded: Digests
) -> Verification:
    """What was found, and what one more interval shows."""
    run, first, last = recomputation.run, interval.first, interval.last
    there = {step: digests for step, digests in recorded.items() if first <= step < last}
    with recomputation.computed(interval, gcd(*(step + 1 for step in there))) as again:
        here = digests_of(again, first, last)
        near = None if found.close is None else _near(run, again, interval, found.stages)
        snapshots = (run.snapshot(first), *filter(None, [interval.state]))
        anew = read_config(again.path).model_copy(update={"train": trained.train})
        return replace(
            found,
            last=last,
            recorded=found.recorded + len(there.keys() & here.keys()),
            states=found.states if interval.state is None else (*found.states, last),
            difference=first_difference(there, here, found.stages),
            tensors=_states(run, interval, again, found.stages),
            near=found.near if near is None else (*found.near, near),
            circumstances=(
                *other_version(trained, snapshots),
                *given_otherwise(run, first),
                *other_circumstances(Circumstances.of(run, first), Circumstances.of(again, first)),
            ),
            keys=tuple(other_keys(trained, anew)),
        )


def _ends(run: RunDir, question: Question) -> tuple[int | None, int | None]:
    """From which steps to which; see `intervals_of`."""
    if not question.whole:
        return question.first, question.last
    if question.first is not None or question.last is not None:
        raise UserError("--all is from the beginning to the end: give it without --from and --to")
    recorded = [step + 1 for step in digests_of(run)] if question.close is None else [steps_done(run)]
    return 0, max([*states_of(run), *recorded], default=None)


def _near(run: RunDir, again: RunDir, interval: Interval, stages: Sequence[int]) -> Closeness:
    found = closeness(run, again, interval.first, stages)
    if found is None:
        raise UserError(
            f"'{run.metrics}' has no line of steps {interval.first} to {interval.last}, with which --close could "
            "compare. Give other steps with --from and --to, or go without --close"
        )
    return found


def _states(run: RunDir, interval: Interval, again: RunDir, stages: Sequence[int]) -> tuple[StateDifference, ...]:
    if interval.state is None:
        return ()
    here = again.snapshot(interval.last)
    found = (compare_states(interval.state, here, stage, run.path, again.path) for stage in stages)
    return tuple(state for state in found if state is not None)


def config_here(run_dir: Path, overrides: Sequence[str], trusted: bool) -> Config:
    """The configuration of a run with overrides of this machine; raises `ConfigError` for one that decides numbers."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not is_free(key):
            problem = "decides the numbers, which are to be those of the run"
            raise ConfigError(key, problem, "Give where and how it is computed here, such as device or data.root")
    return load_config(RunDir(run_dir).config, overrides, LoadOptions(trusted=trusted, run=run_dir))


def _stages(config: Config, stage: int | None) -> tuple[int, ...]:
    if stage is None:
        return tuple(range(1, config.num_stages + 1))
    check_stage(config, stage)
    return (stage,)


def check_stage(config: Config, stage: int) -> None:
    """Raises `UserError` where the run has no such stage."""
    if not 1 <= stage <= config.num_stages:
        raise UserError(f"--stage: there is no stage {stage}. Give one from 1 to {config.num_stages}")


def _check_comparable(run: RunDir, interval: Interval, recorded: Collection[int]) -> None:
    """Raises where the last interval has neither digests nor a state at its end; all others end with a snapshot."""
    if interval.state is not None or any(interval.first <= step < interval.last for step in recorded):
        return
    problem = f"'{run.path}' recorded no digests of steps {interval.first} to {interval.last} (digests.every)"
    kept = f"Give --to {interval.first}, after which there is a snapshot" if interval.first else "Give another --to"
    raise UserError(f"{problem}, and has kept no state after {interval.last} steps. {kept}, or --close 0.001")
