"""Kills a random process of a run at random times, for minutes on end, and sees that the weights come out right.

    make soak MINUTES=30 [SEED=1]

Runs of some hundred tiny steps follow one another until the time is over. Each is struck every few seconds: a stage is
killed or stopped, the coordinator or the command line is killed, or the run is asked to leave and is started again.
Each must end with the weights of one serial run that nobody touched, and leave nothing behind. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.runs import Process, processes_mentioning, report, start, train

STEPS = 400
IN_FLIGHT = 20
"""Steps that may still end after a strike because their batches had passed the place that it hit."""
RECOVERY_LIMIT = 180.0
"""Seconds; ten times what a recovery takes on a machine that does nothing else."""
OVERRIDES = (
    f"train.max_steps={STEPS}", "train.epochs=20", "snapshots.every=20", "restart=stage", "max_restarts=5",
    "hang_timeout=8", "metrics.enabled=false", "stages.2.objective.kind=byol", "stages.2.objective.predictor=[32]",
)  # fmt: skip


class Wrong(Exception):
    """The soak has found something."""


@dataclass
class Soak:
    """One series of runs.

    Args:
        folder: for their files.
        draw: what strikes when.
        wanted: digest of the trained weights.
    """

    folder: Path
    draw: random.Random
    wanted: str
    times: dict[str, list[float]] = field(default_factory=dict)
    """Seconds that the run stood still after each strike, by kind."""
    runs: int = 0

    def run_once(self, until: float) -> None:
        """One run to its end; strikes stop at `until` (by `time.monotonic`)."""
        self.runs += 1
        folder = self.folder / f"{self.runs}"
        folder.mkdir()
        link = self.draw.choice(["queue", "queue", "p2p"])
        process = self._begin(folder, link)
        while process.poll() is None:
            self._pause(process, self.draw.uniform(1.0, 10.0))
            if process.poll() is None and self._step(folder) >= 0 and time.monotonic() < until:
                process = self._strike(folder, link, process)
        out, err = process.communicate()
        if process.returncode != 0 or report(folder)["final_digest"] != self.wanted:
            raise Wrong(f"run {self.runs} (link {link}) in {folder}: exit code {process.returncode}\n{out}\n{err}")
        self._nothing_left(folder)

    def _begin(self, folder: Path, link: str) -> Process:
        environment = {"TMPDIR": str(self.folder / "tmp")}
        return start(folder, *OVERRIDES, f"link.kind={link}", environment=environment, forked=False)

    def _strike(self, folder: Path, link: str, process: Process) -> Process:
        kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "kill a stage": (10, lambda: _send(signal.SIGKILL, folder, "launch.processes.stage_main", self.draw)),
            "kill two stages": (
                2,
                lambda: all(_send(signal.SIGKILL, folder, "launch.processes.stage_main", self.draw) for _ in "12"),
            ),
            "stop a stage": (2, lambda: _send(signal.SIGSTOP, folder, "launch.processes.stage_main", self.draw)),
            "kill the coordinator": (
                2,
                lambda: _send(signal.SIGKILL, folder, "launch.processes.coordinator_main", self.draw),
            ),
            "kill the command": (2, lambda: process.kill() is None),
            "ask to leave": (2, lambda: process.terminate() is None),
        }
        kind = self.draw.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        before, struck, at = self._step(folder), time.monotonic(), time.time()
        if not kinds[kind][1]():
            return process
        if kind in ("kill the command", "ask to leave"):
            _, err = process.communicate(timeout=RECOVERY_LIMIT)
            if kind == "ask to leave" and process.returncode not in (0, 130):
                raise Wrong(f"{folder}: asked to leave, it ended with {process.returncode}: {err}")
            self._nothing_left(folder)
            process = self._begin(folder, link)
        while self._step(folder) < min(before + IN_FLIGHT, STEPS - 1) and process.poll() is None:
            if time.monotonic() - struck > RECOVERY_LIMIT:
                raise Wrong(f"{folder}: no new step within {RECOVERY_LIMIT:g} s after: {kind}")
            time.sleep(0.05)
        self.times.setdefault(kind, []).append(_longest_pause(folder, at))
        return process

    def _step(self, folder: Path) -> int:
        """The last step that all stages have finished; -1 before the first."""
        try:
            lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
            return max((json.loads(line)["step"] for line in lines[-3:] if line.endswith("}")), default=-1)
        except FileNotFoundError:
            return -1

    def _pause(self, process: Process, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _nothing_left(self, folder: Path) -> None:
        deadline = time.monotonic() + 30
        while left := [*processes_mentioning(f"{folder}/run"), *map(str, (self.folder / "tmp").glob("onward-*"))]:
            if time.monotonic() > deadline:
                raise Wrong(f"{folder}: left behind: {left}")
            time.sleep(0.2)

    def table(self) -> str:
        """What was survived."""
        lines = [f"{'strike':22} {'survived':>8} {'stood still: median':>20} {'longest':>9}"]
        for kind, times in sorted(self.times.items()):
            lines.append(f"{kind:22} {len(times):8d} {median(times):18.1f} s {max(times):7.1f} s")
        total = sum(len(times) for times in self.times.values())
        return "\n".join(
            [*lines, f"{total} strikes in {self.runs} runs of {STEPS} steps, every digest {self.wanted[:12]}"]
        )


def _longest_pause(folder: Path, struck: float) -> float:
    """Seconds between two steps that follow one another, the second of them after `struck` (by `time.time`)."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line)["time"] for line in lines if line.endswith("}")]
    return max((later - earlier for earlier, later in pairwise(times) if later > struck), default=0.0)


def _send(number: signal.Signals, folder: Path, module: str, draw: random.Random) -> bool:
    """Send a signal to one process of the run that runs `module`; whether there was one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if module.encode() in title and f"{folder}/run".encode() in title:
                found.append(int(entry.name))
        except OSError:
            continue
    if not found:
        return False
    try:
        os.kill(draw.choice(sorted(found)), number)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shared = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        (folder / "serial").mkdir()
        result = train(folder / "serial", *OVERRIDES, "restart=none", "runtime=serial")
        if result.returncode:
            print(result.stderr)
            return 1
        soak = Soak(folder, random.Random(arguments.seed), str(report(folder / "serial")["final_digest"]))
        started = time.monotonic()
        try:
            while time.monotonic() < started + 60 * arguments.minutes:
                soak.run_once(started + 60 * arguments.minutes)
                strikes = sum(len(times) for times in soak.times.values())
                print(
                    f"{(time.monotonic() - started) / 60:5.1f} min  run {soak.runs} right, {strikes} strikes",
                    flush=True,
                )
        except Wrong as wrong:
            print(wrong)
            print(soak.table())
            return 1
        print(soak.table())
        if left := set(os.listdir("/dev/shm")) - shared:
            print(f"left in /dev/shm: {left}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
