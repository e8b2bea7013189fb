"""Rows about bits: the serial run against four stages over each link, each twice; a stage that is killed; tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.common.runs import steps
from tests.gpu.results import Row, Rows
from tests.gpu.running import RowFailed, finish, folder, train
from tests.gpu.setting import Setting
from tests.recovery import STEPS, faults, pause
from tests.runs import ROOT, report, start, wait_for_snapshot, wait_for_steps

RUNTIMES = {
    "serial": ("runtime=serial",),
    "queue": ("link.kind=queue",),
    "queue, pinned": ("link.kind=queue", "link.device_to_device=false"),
    "p2p": ("link.kind=p2p",),
    "rpc": ("link.kind=rpc",),
}
KILLED, AT = 3, 7
"""The stage, and the step in which it waits to be killed, after a snapshot of four steps."""


def digests(setting: Setting, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Of two runs, and how the tensors of their links got across."""
    found, ways = [], dict[str, None]()
    for _ in range(2):
        with folder() as place:
            found.append(train(setting, place, *STEPS, *overrides)["final_digest"])
            ways |= dict.fromkeys(ways_of(place))
    return {"digests": found, "ways": list(ways)}


def ways_of(place: Path) -> list[str]:
    """What a run has said of each link between GPUs, without the names of its ends."""
    path = place / "run" / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    said = [str(json.loads(line).get("text", "")) for line in lines]
    return [way for _, found, way in (text.partition(": queue, ") for text in said) if found]


def killed(setting: Setting) -> dict[str, Any]:
    """Seconds from SIGKILL to the first step after it, and the digest at the end."""
    with folder() as place:
        go, waits = place / "go", faults(pause(place / "go", KILLED, AT))
        overrides = (*STEPS, f"device={setting.of_runs}", "link.kind=queue", "restart=stage", waits)
        process = start(place, *overrides, forked=setting.forked)
        try:
            wait_for_steps(place, AT, process)
            wait_for_snapshot(place, AT // 4 * 4, process)
            log = (place / "run" / "logs" / f"stage_{KILLED}.log").read_text()
            pid = int(re.findall(r"process (\d+)", log)[-1])
            os.kill(pid, signal.SIGKILL)
            died = time.time()
            go.touch()
        except BaseException:
            process.kill()
            raise
        finish(process, "the run", setting.seconds)
        back = next(line["time"] for line in steps(place / "run") if line["step"] >= AT)
        logs = (place / "run" / "logs" / f"stage_{KILLED}.log").read_text()
        if len(set(re.findall(r"process (\d+)", logs))) < 2:
            raise RowFailed(f"stage {KILLED} was not started again")
        digest = report(place)["final_digest"]
        return {"seconds_to_next_step": back - died, "digests": [digest], "ways": list(dict.fromkeys(ways_of(place)))}


def tests_on_the_device(setting: Setting) -> dict[str, Any]:
    """Those that are marked `gpu`; on a CPU those of the folder `tests/gpu` that run on any device."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    where = [str(path) for path in files] if setting.gpus else [str(ROOT / "tests" / "gpu" / "test_device.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu" if setting.gpus else "not slow",
    ]
    done = subprocess.run([*command, *where], cwd=ROOT, capture_output=True, text=True, timeout=setting.seconds)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    if done.returncode or not counts.get("passed"):
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise RowFailed(
            "; ".join(failed)[:280] or f"pytest ended with exit code {done.returncode}: {done.stderr[-200:]}"
        )
    return {"counts": counts}


def show_digests(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    return "; ".join([", ".join(digest[:12] for digest in row["digests"]), *row.get("ways", [])])


def rows() -> list[Row]:
    """Part 1."""
    found = [
        Row(
            "tests on the device", 1, "the tests that need a device", tests_on_the_device,
            lambda row, rows, setting: ", ".join(f"{count} {word}" for word, count in row["counts"].items()),
        )
    ]  # fmt: skip
    found += [
        Row(
            f"bits: {name}", 1, f"the tiny network, {' '.join(overrides)}, twice: digests of the weights",
            partial(digests, overrides=overrides), show_digests, group="tiny",
        )
        for name, overrides in RUNTIMES.items()
    ]  # fmt: skip
    found.append(
        Row(
            "bits: kill -9, restart=stage", 1, f"stage {KILLED} is killed in step {AT} of 12", killed,
            lambda row, rows, setting: (
                f"{row['seconds_to_next_step']:.1f} s to the next step, {show_digests(row, rows, setting)}"
            ),
            group="tiny",
        )
    )  # fmt: skip
    return found
