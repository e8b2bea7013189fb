"""Which steps of a run can be computed again: from a snapshot to where something is there to compare.

    0 ------------- 20 ------------- 40 ----- 50       snapshots after 20 and 40 steps, trained for 50
    |-- an interval --|-- another --|-- and --|

A number is one of steps that are done, as in the names of snapshots; 0 is the beginning, from the run's own seed and
`init_from`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

from launch.failure import read_failure
from pipeline.errors import UserError
from workers.observing.history_file import first_and_last_step
from workers.run.files import RunDir, read_object, read_report, step_numbers
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest


@dataclass(frozen=True)
class Interval:
    """Steps that are computed again in one go.

    Args:
        first: steps that were done before; there is a snapshot after them, or it is 0.
        last: steps that are done at its end.
        state: folder with the state of the stages at its end, one file each; None where the run kept none.
    """

    first: int
    last: int
    state: Path | None


def intervals_of(run: RunDir, first: int | None, last: int | None) -> list[Interval]:
    """From the snapshot at or before `first` to `last`, cut at every snapshot in between.

    Args:
        run: its directory.
        first: steps; if not given, those of the last snapshot before `last`, or 0 without one.
        last: steps; if not given, those of the next snapshot, or of the end, behind `first`; without `first` the last
            at which the run has kept its state.

    Raises:
        UserError: the run has not come so far, has no snapshot before it, or one that is damaged.
    """
    done, states = steps_done(run), states_of(run)
    snapshots = _snapshots(run, states)
    if first is not None:
        start = _start(run, snapshots, first)
        last = last or next((n for n in sorted(states) if n > first), done)
    else:
        last = last or max(states, default=done)
        start = max((n for n in snapshots if n < last), default=0)
    if max(last, (first or 0) + 1) > done:
        raise UserError(f"'{run.path}' has been trained for {done} steps. Give --from and --to up to that")
    if (first or start) >= last:
        raise UserError(f"there are no steps from {first} to {last}. Give --from a smaller number than --to")
    cuts = [start, *(n for n in snapshots if start < n < last), last]
    for steps in cuts[:-1]:
        _check_beginning(run, snapshots, steps)
    return [Interval(one, other, states.get(other)) for one, other in pairwise(cuts)]


def start_of_step(run: RunDir, step: int, first: int | None, every: int | None) -> int:
    """The steps that were done at the snapshot from which `step`, counted from 0, is reached; 0 for the beginning.

    Args:
        run: its directory.
        step: it may be one behind the last that ended, at which the run failed.
        first: that snapshot or one before it; if not given, the last at or before `step`. The beginning then counts
            only for a run that has removed no snapshot before the step, since it may be far away.
        every: `snapshots.every`.

    Raises:
        UserError: the run has not come so far, has no snapshot before the step, or one that is damaged.
    """
    failed = (read_failure(run) or {}).get("step")
    reached = max(_done(run) - 1, failed if isinstance(failed, int) else 0)
    if step > reached:
        raise UserError(f"'{run.path}' has no step {step}: it came to step {reached}. Give --step up to that")
    if first is not None and first > step:
        raise UserError(f"step {step} is before --from {first}. Give --from up to {step}")
    snapshots = _snapshots(run, states_of(run))
    if first is None and (not snapshots or step < (every or 0)):
        start = max((n for n in snapshots if n <= step), default=0)
    else:
        start = _start(run, snapshots, step if first is None else first, step)
    _check_beginning(run, snapshots, start)
    return start


def _snapshots(run: RunDir, states: Mapping[int, Path]) -> list[int]:
    """After how many steps there is a snapshot, ascending: a state that one can begin with."""
    return sorted(n for n, state in states.items() if state != run.final)


def _check_beginning(run: RunDir, snapshots: Sequence[int], steps: int) -> None:
    """Raises `UserError` where the snapshot that is begun with is not whole."""
    if not steps:
        return
    try:
        check_files(run.snapshot(steps), read_manifest(run.snapshot(steps)))
    except UserError as error:
        before = max((n for n in snapshots if n < steps), default=0)
        remedy = f"Give --from {before}, or move '{run.snapshot(steps)}' out of the run to go without it"
        raise UserError(f"{error}. {remedy}") from None


def _start(run: RunDir, snapshots: list[int], first: int, most: float = inf) -> int:
    """The snapshot from which `first` is reached; raises `UserError` where only the beginning is before it.

    Args:
        run, snapshots, first: of the run, which there are, and steps.
        most: a snapshot after more steps is of no use.
    """
    before = [n for n in snapshots if n <= first]
    if before or not first:
        return max(before, default=0)
    nearest = " and ".join(map(str, snapshots[:2]))
    kept = f"the nearest are after {nearest} steps" if len(snapshots) > 1 else f"there is one after {nearest} steps"
    what = f"no snapshot of its first {first} steps, {kept}" if snapshots else "no snapshots"
    others = f"--from {snapshots[0]}, or " if snapshots and snapshots[0] <= most else ""
    raise UserError(f"'{run.path}' has {what}. Give {others}--from 0, which computes all from its beginning")


def states_of(run: RunDir) -> dict[int, Path]:
    """The folders of all states that a run has kept, by the steps until them: of its snapshots, and of its end."""
    states = {n: run.snapshot(n) for n in step_numbers(run) if (run.snapshot(n) / MANIFEST).is_file()}
    if ends := _ended_after(run):
        states.setdefault(ends, run.final)
    return states


def steps_done(run: RunDir) -> int:
    """The steps that a run has done; raises `UserError` if there are none."""
    if not (done := _done(run)):
        raise UserError(f"'{run.path}' has no step that could be verified. Train it first")
    return done


def _done(run: RunDir) -> int:
    """By what is there of its lines, which a run that was killed may not have written, its snapshots and its end."""
    return max(_lines(run), *states_of(run), 0)


def _lines(run: RunDir) -> int:
    lines = first_and_last_step(run.metrics)
    return 0 if lines is None else int(lines[1]["step"]) + 1


def _ended_after(run: RunDir) -> int:
    """The steps of a run that has been trained to its end; 0 for any other."""
    if not (run.stage(1).is_file() and "final_digest" in (read_report(run) or {})):
        return 0
    with suppress(OSError):
        total = (read_object(run.coordinator) or {}).get("total_steps")
        if isinstance(total, int) and total > 0:
            return total
    return _lines(run)  # of a version that wrote no total
