"""A private copy of the checkout in which one line can be broken, and a warm Python that runs tests in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.breaks import Break

WARM = Path(__file__).with_name("warm.py")
PYTEST = ("-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--timeout=120")
SILENCE = 300.0
"""Seconds after which a run in which no test begins or ends counts as hanging; pytest ends a test after 120."""


@dataclass(frozen=True)
class Outcome:
    """One run of tests.

    Args:
        code: pytest's exit code; None if the run was silent for too long and was killed.
        failed: the tests that failed or were running when the run ended, and the files that cannot be imported.
        passed: those that did.
        seconds: what each of those took.
    """

    code: int | None
    failed: list[str]
    passed: list[str]
    seconds: dict[str, float]


class Gone(Exception):
    """The process that runs the tests has ended."""


class Bench:
    """A copy of the checkout, with a warm Python that runs tests in it. One thread uses it.

    Args:
        original: what is copied.
        place: a folder for the copy, which is made; short, because sockets are put below it.
    """

    def __init__(self, original: Path, place: Path) -> None:
        self.root, self._temporary, self._log = place / "c", place / "t", place / "log"
        shutil.copytree(original, self.root)
        self._temporary.mkdir()  # now: Python looks for a place once
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
        own = {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",  # two breaks of one size within a second would share their bytecode
            "TMPDIR": str(self._temporary),
            "OMP_NUM_THREADS": "1",
        }
        self._errors = place / "warm.log"
        with open(self._errors, "wb") as errors:
            self._warm = subprocess.Popen(
                [sys.executable, "-P", str(WARM)],
                cwd=self.root,
                env={**kept, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._answer()

    def run(self, arguments: Sequence[str], skip: Sequence[str] = ()) -> Outcome:
        """Pytest with these arguments, without the tests of `skip`."""
        order = {"arguments": [*PYTEST, *arguments], "skip": list(skip), "log": str(self._log), "silence": SILENCE}
        assert self._warm.stdin is not None
        try:
            self._warm.stdin.write(json.dumps(order) + "\n")
            self._warm.stdin.flush()
        except (OSError, ValueError) as error:
            raise Gone(self._errors.read_text(errors="replace")) from error
        outcome = Outcome(**self._answer())
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(exist_ok=True)
        return outcome

    @contextlib.contextmanager
    def broken(self, found: Break) -> Iterator[None]:
        """The copy with one break."""
        path = self.root / found.file
        source = path.read_text()
        path.write_text(found.applied_to(source))
        try:
            yield
        finally:
            path.write_text(source)
            for cache in list(self.root.rglob("__pycache__")):  # of processes that were given another environment
                shutil.rmtree(cache, ignore_errors=True)

    def said(self) -> str:
        """The end of what the last run printed."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""

    def close(self) -> None:
        """End the warm Python and whatever it runs."""
        with contextlib.suppress(OSError):
            if self._warm.stdin is not None:
                self._warm.stdin.close()
        self._warm.wait()

    def _answer(self) -> Any:
        assert self._warm.stdout is not None
        line = self._warm.stdout.readline()
        if not line:
            raise Gone(self._errors.read_text(errors="replace"))
        return json.loads(line)
