"""Breaks lines of the packages, one at a time, and sees whether the tests notice.

    python -m tests.mutation --sample 150 --seed 1 --jobs 2 --to mutants.json [--coverage .coverage] [FOLDER ...]

Draws one-line breaks over all folders (the same ones for the same seed), applies each to a private copy of the checkout
and runs the tests there that can see it, until one fails: those that coverage.py has seen run the line, then the test
files nearest to it, then the others of the quick tier, then those of its folder that start processes. Reports the
survivors; exits with 1 if there are any. A file given with `--to` keeps what has been judged, and a second call goes on
from there; after tests were added, `--again` judges its survivors anew. `--list` only shows what would be tried.

This is not mutmut, because mutmut 3 runs its mutants as trampolines in forks of one process, and what this project does
happens in trees of processes that are started afresh and would import the unbroken files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutation.breaks import Break, draw
from tests.mutation.judging import Judge, Judgement, judge_all
from tests.mutation.reach import Reach
from tests.mutation.search import breaks_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "workers", "launch", "onward")


class Ledger:
    """What has been judged, in a file if there is one.

    Args:
        path: of the JSON; None keeps it in memory.
        again: forget the survivors.
    """

    def __init__(self, path: Path | None, again: bool) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = []
        if path is not None and path.exists():
            kept = json.loads(path.read_text())["judged"]
            self.entries = [entry for entry in kept if not (again and entry["verdict"] == "survived")]

    def of(self, found: Break) -> dict[str, Any] | None:
        """The entry of a break; None if it has not been judged."""
        wanted = asdict(found)
        return next((entry for entry in self.entries if wanted.items() <= entry.items()), None)

    def add(self, found: Break, judgement: Judgement) -> None:
        """Keep one more; whoever is killed loses at most what is being judged."""
        self.entries.append({**asdict(found), **asdict(judgement)})
        if self._path is not None:
            new = self._path.with_name(self._path.name + ".new")
            new.write_text(json.dumps({"judged": self.entries}, indent=1) + "\n")
            new.replace(self._path)


def copy_checkout(to: Path) -> None:
    """Everything that git tracks, or would if it were added."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def sources_of(root: Path) -> dict[str, str]:
    """The text of every file of the packages."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def table(survivors: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| where | what was done | before | after | tests that run it |", "| --- | --- | --- | --- | --- |"]
    for entry in sorted(survivors, key=lambda entry: (entry["file"], entry["line"])):
        before, after = (f"`{entry[name].strip()}`".replace("|", "\\|") for name in ("before", "after"))
        known = "?" if entry["covering"] is None else entry["covering"]
        lines.append(f"| {entry['file']}:{entry['line']} | {entry['kind']} | {before} | {after} | {known} |")
    return "\n".join(lines)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, default=150, help="breaks to draw (default: 150)")
    parser.add_argument("--seed", type=int, default=1, help="another one draws others (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the checkout to work in (default: 1)")
    parser.add_argument("--to", type=Path, help="JSON of what has been judged; a second call goes on from there")
    parser.add_argument("--again", action="store_true", help="judge the survivors in that file anew")
    parser.add_argument("--quick", action="store_true", help="without the tests that start processes: a first look")
    parser.add_argument("--coverage", type=Path, help="data of coverage.py with dynamic_context = test_function")
    parser.add_argument("--limit", type=int, help="judge at most so many now")
    parser.add_argument("--list", action="store_true", help="only show what would be tried")
    parser.add_argument("under", nargs="*", help="break only files whose path begins like this")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without tidying up
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        place = Path(folder)
        original = place / "o"
        copy_checkout(original)
        sources = sources_of(original)
        chosen = {file: text for file, text in sources.items() if file.startswith(tuple(given.under or PACKAGES))}
        sample = draw(
            [found for file in chosen for found in breaks_of(file, chosen[file])], chosen, given.sample, given.seed
        )
        ledger = Ledger(given.to, given.again)
        waiting = [found for found in sample if ledger.of(found) is None][: given.limit]
        if given.list:
            for found in sample:
                print(f"{found.file}:{found.line} {found.kind}\n  - {found.before.strip()}\n  + {found.after.strip()}")
            return 0
        judge = Judge(Reach(original), sources, given.coverage, given.quick)
        left = len(waiting)

        def told(found: Break, judgement: Judgement) -> None:
            nonlocal left
            left -= 1
            ledger.add(found, judgement)
            where, by = f"{found.file}:{found.line} {found.kind}", judgement.by or "nobody"
            print(
                f"{judgement.verdict:8} {judgement.seconds:6.1f} s  {where}: {judgement.among}, {by} ({left} left)",
                flush=True,
            )

        try:
            judge_all(judge, original, place, waiting, given.jobs, told)
        finally:
            for name in sorted(judge.unsound):
                print(f"left out, because it fails without a break: {name}")
    judged = [entry for found in sample if (entry := ledger.of(found)) is not None]
    survivors = [entry for entry in judged if entry["verdict"] == "survived"]
    print(f"\n{len(judged) - len(survivors)} of {len(judged)} breaks were noticed, of a sample of {len(sample)}")
    if survivors:
        print(table(survivors))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
