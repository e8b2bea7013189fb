"""The tests as they would run on other machines, all at the same time: `make test-elsewhere`.

| name | what is different |
|---|---|
| `sse` | a processor without AVX |
| `avx2` | a processor without AVX-512 |
| `one-core` | one core |

Each is beside suites that take every core, and meets whatever is shared on a machine; each takes the tests in a random
order of its own. `python -m tests.elsewhere one-core -- tests/workers -x` runs only that, with these arguments for
pytest. What each prints goes to `runs/elsewhere/NAME.log`. The exit code is the number of suites that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "runs" / "elsewhere"
LIMIT = 5400
"""Seconds that one suite may take."""


@dataclass(frozen=True)
class Elsewhere:
    """Another machine.

    Args:
        name: of its log.
        seed: of the order of the tests.
        before: in front of the command.
        environment: beside ours.
        workers: of pytest-xdist.
    """

    name: str
    seed: int
    before: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 2

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """The suite; what it prints goes to its log."""
        order = ("-p", "randomly", f"--randomly-seed={self.seed}")
        pytest = ("-m", "pytest", "-q", "-n", str(self.workers), "--dist", "worksteal", "-m", "not slow", *order)
        with (LOGS / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                [*self.before, sys.executable, *pytest, *arguments], cwd=ROOT, env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip


SUITES = (
    Elsewhere("sse", 1, environment={"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Elsewhere("avx2", 2, environment={"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Elsewhere("one-core", 3, before=("taskset", "-c", "0"), workers=1),
)


def run(suites: Sequence[Elsewhere], arguments: Sequence[str]) -> int:
    """Run these at the same time, and say how each ended; how many failed."""
    failed, started = 0, time.monotonic()
    processes = [suite.start(arguments) for suite in suites]
    for suite, process in zip(suites, processes, strict=True):
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        lines = (LOGS / f"{suite.name}.log").read_text(errors="replace").splitlines()
        minutes = (time.monotonic() - started) / 60
        print(f"{suite.name:10} {'passed' if not code else f'FAILED ({code})':12} {minutes:5.1f} min", end="  ")
        print((lines or ["it printed nothing"])[-1].strip("= "), flush=True)
        if code:
            print("\n".join(f"    {line}" for line in lines if line.startswith(("FAILED", "ERROR"))), flush=True)
        failed += bool(code)
    return failed


def main() -> int:
    given = sys.argv[1:]
    names = given[: given.index("--")] if "--" in given else given
    arguments = given[len(names) + 1 :]
    known = [suite.name for suite in SUITES]
    if unknown := set(names) - set(known):
        print(f"error: {', '.join(sorted(unknown))}: not one of {', '.join(known)}", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    return run([suite for suite in SUITES if not names or suite.name in names], arguments)


if __name__ == "__main__":
    sys.exit(main())
