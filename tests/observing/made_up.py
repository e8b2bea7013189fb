"""A run that never was: its facts, the lines of its `metrics.jsonl`, and all of it shown on this process's terminal.

As a program, `python -m tests.observing.made_up STAGES STEPS [probe] [raise] [until=FILE]`, for tests that look at a
screen; it ends when the file is there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.waiting import wait_until
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.observer import Event, Observers, RunFacts
from workers.observing.terminal.console import Console
from workers.observing.terminal.progress import Progress


def facts(path: Path = Path("runs/made-up"), stages: int = 2, start_step: int = 0) -> RunFacts:
    """585 steps, 39 an epoch; at most two batches wait on a link."""
    return RunFacts(
        name=path.name,
        path=path,
        config={"link": {"depth": 2}},
        stages=stages,
        total_steps=585,
        steps_per_epoch=39,
        start_step=start_step,
        started=1.0,
    )


def stage(number: int, step: int, **values: Any) -> dict[str, Any]:
    """Busy 0.2 s a step, starved 0.2, blocked 0.1."""
    added = {"busy": 0.2, "wait_input": 0.2, "wait_output": 0.1, "link_bytes": 1000}
    return {
        "stage": number, "step": step, "loss": 2.0 + number, "terms": {"invariance": 1.5, "redundancy": None},
        "learning_rate": 0.1, "skipped": 0, **{name: (step + 1) * value for name, value in added.items()},
        "queue_depth": 1, "online": {}, "gradient_norm": None, "added": added, **values,
    }  # fmt: skip


def line(step: int, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Of `metrics.jsonl`; the first step has no speed yet."""
    pace = (
        {"images_per_second": 676.25, "eta_seconds": 216.0} if step else {"images_per_second": 0.0, "eta_seconds": None}
    )
    return {
        "step": step,
        "epoch": step // 39,
        "time": 100.0 + step,
        "images": 256,
        **pace,
        "added": {"seconds": 1.0},
        "stages": stages,
    }


def alarm(number: int | None, step: int, kind: Any = "alarm", name: str = "nonfinite") -> Event:
    """Something is wrong with a stage, or with the run."""
    return Event(
        time=1.0, kind=kind, name=name, stage=number, step=step, text=f"{name} of stage {number} at step {step}"
    )


def show(stages: int, steps: int, probed: bool, raises: bool, until: Path | None) -> None:
    """Draw the run as it would be drawn; an alarm at step 3."""
    active = ActiveAlarms()
    with Progress(Console.of_process(), active) as progress:
        progress.run_started(facts(stages=stages))
        for step in range(steps):
            online = {"linear": 0.25} if probed else {}
            progress.step_done(line(step, [stage(number, step, online=online) for number in range(1, stages + 1)]))
            if step == 3:
                Observers([progress], print, active.event).event(alarm(2, step))
        if until is not None:
            wait_until(until.exists, until)
        if raises:
            raise SystemExit("it ends badly")
        progress.run_ended("done")
    print("the end")


if __name__ == "__main__":
    files = [Path(word.removeprefix("until=")) for word in sys.argv if word.startswith("until=")]
    show(int(sys.argv[1]), int(sys.argv[2]), "probe" in sys.argv, "raise" in sys.argv, files[0] if files else None)
