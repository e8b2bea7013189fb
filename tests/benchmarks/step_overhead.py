"""What a step costs beside the computing: CPU seconds of the processes of a run of tiny blocks, beyond a serial one's.

    python tests/benchmarks/step_overhead.py [--stages 1 2 4 8] [--rounds 3] [--steps 300] [key=value ...]

In every round each number of stages is trained in one process and as a pipeline, one after the other, on one thread.
CPU seconds of a process are the kernel's (`/proc/PID/stat`) between two steps in the middle of the run, divided by
the steps between them; views are made by other processes, which are left out. What a stage adds is all of the stage
processes and of the coordinator, less the serial process, divided by the number of stages. Digests are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from common.runs import ROOT, machine

BLOCKS = [f"layer{layer}.{unit}" for layer in range(1, 5) for unit in range(2)]
TINY = (
    *("model.width=8", "data.batch_size=8", "head.width=8", "head.projector=[8, 8]", "threads=1"),
    *("data.workers=1", "evaluation.linear_probe=false", "snapshots.every=100000"),
)
WARM = 40
"""Steps before the first look, in which kernels are chosen and memory is found."""
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = 900.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    print(machine())
    print("CPU ms a step, median of the rounds")
    print("stages   serial   all stages   coordinator   a stage adds   (stages + coordinator) / serial")
    for stages in given.stages:
        found: defaultdict[str, list[float]] = defaultdict(list)
        digests = set()
        for _ in range(given.rounds):
            serial, digest = one_run(given, stages, "serial")
            own, other = one_run(given, stages, "pipelined")
            digests |= {digest, other}
            alone, coordinator = serial["serial"], own.pop("coordinator")
            together = sum(own.values())
            for name, value in (
                ("serial", alone),
                ("together", together),
                ("added", (together + coordinator - alone) / stages),
                ("coordinator", coordinator),
                ("ratio", (together + coordinator) / alone),
            ):
                found[name].append(value)
        same = "" if len(digests) == 1 else "  the weights are DIFFERENT"
        row = {name: median(values) for name, values in found.items()}
        print(
            f"{stages:6}  {row['serial']:7.2f}  {row['together']:11.2f}  {row['coordinator']:12.2f}  "
            f"{row['added']:13.2f}  {row['ratio']:33.2f}{same}",
            flush=True,
        )


def one_run(given: argparse.Namespace, stages: int, runtime: str) -> tuple[dict[str, float], str]:
    """CPU milliseconds a step of every process of a run, and the digest of what it trained."""
    cuts = [BLOCKS[number * len(BLOCKS) // stages - 1] for number in range(1, stages)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        changes = (f"model.cuts=[{', '.join(cuts)}]", f"runtime={runtime}", f"train.max_steps={given.steps}")
        command = [sys.executable, "-m", "launch.cli", "train", str(given.config), f"run_dir={run}"]
        process = subprocess.Popen([*command, *TINY, *changes, *given.overrides], stdout=subprocess.DEVNULL, cwd=ROOT)
        try:
            first_step, first = look(run, WARM, process)
            last_step, last = look(run, given.steps - WARM // 2, process)
            if process.wait(LIMIT):
                raise SystemExit(f"the run ended with exit code {process.returncode}")
        finally:
            process.kill()
        digest = json.loads((run / "report.json").read_text())["final_digest"]
        return {name: (last[name] - first[name]) * 1000 / (last_step - first_step) for name in first}, digest


def look(run: Path, step: int, process: subprocess.Popen[bytes]) -> tuple[int, dict[str, float]]:
    """As soon as so many steps are done: how many are, and the CPU seconds of every process so far."""
    deadline = time.monotonic() + LIMIT
    while (done := steps_done(run)) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the run did not reach step {step}")
        time.sleep(0.005)
    return done, {name: cpu_seconds(pid) for name, pid in processes(run).items()}


def steps_done(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def processes(run: Path) -> dict[str, int]:
    """The processes that train or coordinate, by the names of their logs."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(run) not in words or not entry.name.isdigit():
            continue
        if title := re.search(r"onward launch\.processes\.\w+ (\w+) ", words):
            found[title[1]] = int(entry.name)
        elif "launch.train" in words:
            found["serial"] = int(entry.name)
    return found


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process, in its own code and in the kernel for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
