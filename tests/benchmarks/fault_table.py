"""What every fault costs: seconds until the next step, steps trained again, and whether the weights are the same.

    python tests/benchmarks/fault_table.py [--config configs/quickstart.yaml] [--only TEXT]

Each row is one run of 60 steps with a snapshot every 20 that is struck at step 35 and comes back: by itself where
`restart` can do it, else by the same command once more. Time counts from the strike to the first line of
`metrics.jsonl` with a step that had not been reached before. The steps trained again are those of the stage that was
struck; with `restart=stage` the others go on from where they were.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.runs import ROOT, machine, steps, train

sys.path.insert(0, str(ROOT))

from tests.runs import command, report

AT, STEPS = 35, 60
FIXED = (
    f"train.max_steps={STEPS}", "evaluation.linear_probe=false", "snapshots.every=20", "metrics.enabled=false",
    "hang_timeout=5", "data.workers=1",
)  # fmt: skip
STARTS_AGAIN = re.compile(r"(?:comes back from step|going on from the snapshot after) (\d+)")


@dataclass(frozen=True)
class Strike:
    """One row of the table.

    Args:
        name: what is printed.
        overrides: of the run; how it comes back, and the fault if the run brings it upon itself.
        signal: that is sent otherwise.
        to: log of the process that it is sent to; None for the command line.
    """

    name: str
    overrides: tuple[str, ...]
    signal: signal.Signals | None = None
    to: str | None = None


def injected(kind: str, stage: int, way: str, *more: str) -> tuple[str, ...]:
    entries = ", ".join([*more, f"{{kind: {kind}, stage: {stage}, step: {AT}}}"])
    return f"faults=[{entries}]", f"restart={way}"


STRIKES = (
    *(Strike(f"stage {k} is killed, restart=stage", injected("kill", k, "stage")) for k in range(1, 5)),
    Strike("stage 3 is killed, restart=job", injected("kill", 3, "job")),
    Strike("stage 3 is killed, the command again", injected("kill", 3, "none")),
    Strike("stage 3 raises, restart=stage", injected("raise", 3, "stage")),
    Strike("stage 3 hangs, restart=stage", injected("hang", 3, "stage")),
    Strike("stage 3 is stopped (SIGSTOP), restart=stage", ("restart=stage",), signal.SIGSTOP, "stage_3"),
    Strike(
        "the newest snapshot is damaged, then all start again",
        injected("kill", 3, "job", f"{{kind: corrupt, stage: 2, step: {AT - 20}}}"),
    ),
    Strike(
        "the disk is full at the newest snapshot, then a kill",
        injected("kill", 3, "stage", f"{{kind: disk_full, stage: 2, step: {AT - 20}}}"),
    ),
    Strike("the coordinator is killed, restart=stage", ("restart=stage",), signal.SIGKILL, "coordinator"),
    Strike("the command is killed, and given again", ("restart=stage",), signal.SIGKILL),
    Strike("SIGTERM, and the command again", ("restart=stage",), signal.SIGTERM),
)


def reached(run: Path) -> int:
    """The last step that all stages have finished; -1 before the first."""
    try:
        return max((line["step"] for line in steps(run)), default=-1)
    except (FileNotFoundError, ValueError):
        return -1


def struck(config: Path, strike: Strike, folder: Path) -> tuple[float, int, str]:
    """Seconds until the next new step, steps trained again, digest."""
    run = folder / "run"
    arguments = command(folder, *FIXED, *strike.overrides, config=config)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    before, at = AT - 1, 0.0
    if strike.signal is not None:
        _await(lambda: reached(run) >= AT, process)
        before, at = reached(run), time.time()
        os.kill(process.pid if strike.to is None else _pid(run, strike.to), strike.signal)
    told, _ = process.communicate(timeout=600)
    at = at or max(mark.stat().st_mtime for mark in (run / ".faults").iterdir())
    if process.returncode != 0:
        again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
        told += again.stdout
    start = min((int(step) for step in STARTS_AGAIN.findall(told)), default=0)  # "starting over"
    before = max(before, start - 1)  # who is asked to leave trains on until its snapshot
    back = next(line["time"] for line in steps(run) if line["step"] > before and line["time"] > at)
    return back - at, before + 1 - start, report(folder)["final_digest"]


def _pid(run: Path, name: str) -> int:
    return int(re.findall(r"process (\d+)", (run / "logs" / f"{name}.log").read_text())[-1])


def _await(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not ready() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError("the run did not reach the strike within 300 s")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--only", default="", help="rows that contain this")
    arguments = parser.parse_args()
    config = arguments.config
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        wanted = train(Path(folder) / "run", config, *FIXED)["final_digest"]
    print(f"{'fault':54} {'next step after':>16} {'trained again':>14}  digest")
    for strike in (strike for strike in STRIKES if arguments.only in strike.name):
        with tempfile.TemporaryDirectory() as folder:
            seconds, lost, digest = struck(config, strike, Path(folder))
        same = "equal" if digest == wanted else f"DIFFERENT: {digest[:12]}"
        print(f"{strike.name:54} {seconds:14.1f} s {lost:8d} steps  {same}", flush=True)


if __name__ == "__main__":
    main()
