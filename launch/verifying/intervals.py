"""Which steps of a run can be computed again: from a snapshot to where something is there to compare.

    0 ------------- 20 ------------- 40 ----- 50       snapshots after 20 and 40 steps, trained for 50
    |-- an interval --|-- another --|-- and --|

A number is one of steps that are done, as in the names of snapshots; 0 is the beginning, from the run's own seed and
`init_from`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

from launch.failure import read_failure
from pipeline.errors import UserError
from workers.observing.history_file import first_and_last_step
from workers.run.files import RunDir, read_report, step_numbers
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
    done = steps_done(run)
    states = states_of(run, done)
    snapshots = sorted(n for n, state in states.items() if state != run.final)
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
        if steps:
            check_files(run.snapshot(steps), read_manifest(run.snapshot(steps)))
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
    lines, failure = first_and_last_step(run.metrics) if run.metrics.is_file() else None, read_failure(run)
    failed = (failure or {}).get("step")
    reached = max(-1 if lines is None else int(lines[1]["step"]), failed if isinstance(failed, int) else -1)
    if step > max(reached, 0):
        raise UserError(f"'{run.path}' has no step {step}: it came to step {max(reached, 0)}. Give --step up to that")
    if first is not None and first > step:
        raise UserError(f"step {step} is before --from {first}. Give --from up to {step}")
    snapshots = [n for n in step_numbers(run) if (run.snapshot(n) / MANIFEST).is_file()]
    if first is None and (not snapshots or step < (every or 0)):
        start = max((n for n in snapshots if n <= step), default=0)
    else:
        start = _start(run, snapshots, step if first is None else first, step)
    if start:
        check_files(run.snapshot(start), read_manifest(run.snapshot(start)))
    return start


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


def states_of(run: RunDir, done: int) -> dict[int, Path]:
    """By the steps until a state that the run has kept, its folder: of the snapshots, and of the end if it came to it.

    Args:
        run: its directory.
        done: steps that it has done.
    """
    states = {n: run.snapshot(n) for n in step_numbers(run) if (run.snapshot(n) / MANIFEST).is_file() and n <= done}
    if run.stage(1).is_file() and "final_digest" in (read_report(run) or {}):
        states.setdefault(done, run.final)
    return states


def steps_done(run: RunDir) -> int:
    """The steps that a run has done; raises `UserError` if there are none."""
    lines = first_and_last_step(run.metrics)
    if lines is None:
        raise UserError(f"'{run.path}' has no step that could be verified. Train it first")
    return int(lines[1]["step"]) + 1
