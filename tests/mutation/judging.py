"""Whether the tests notice a break, and which tests to ask first."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from tests.mutation.bench import Bench, Outcome
from tests.mutation.breaks import Break
from tests.mutation.reach import Reach

QUICK = "not processes and not slow and not gpu"
PROCESSES = "processes and not slow and not gpu"
NEAREST = 8
"""Test files that are tried before all others."""
NOTHING_WRONG = (0, 5)
"""Exit codes of pytest: all passed, none chosen."""


@dataclass(frozen=True)
class Judgement:
    """What became of a break.

    Args:
        verdict: `killed` or `survived`.
        by: the test that noticed it.
        among: the tests that it was found with, or the last that were tried.
        covering: how many tests are known to run the line; None if that is not known.
        seconds: that it took.
    """

    verdict: str
    by: str | None
    among: str
    covering: int | None
    seconds: float


@dataclass
class Judge:
    """Tries the tests on breaks, those first that are likely to notice. Any number of threads use it.

    A failure counts only if that test passes on the unbroken copy; one that does not is left out from then on.

    Args:
        reach: which tests can see a file.
        sources: the text of every file.
        coverage: a file of coverage.py with dynamic contexts, or None.
        quick: leave out the tests that start processes.
    """

    reach: Reach
    sources: dict[str, str]
    coverage: Path | None = None
    quick: bool = False
    unsound: set[str] = field(default_factory=set)
    """Tests that fail on the unbroken copy too."""
    _sound: set[str] = field(default_factory=set)
    _seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, bench: Bench, found: Break) -> Judgement:
        """Run tests until one notices. Raises `Gone` if the bench is closed meanwhile."""
        began = time.monotonic()
        covering, all_known = self.covering(found)
        passed: list[str] = []
        among, by = "no test can see it", None
        for tier, tests, expression in self._tiers(found, covering, all_known):
            if tests and by is None:
                among, by = tier, self._noticed(bench, found, tests, expression, passed)
        verdict = "survived" if by is None else "killed"
        count = len(covering) if all_known else None
        return Judgement(verdict, by, among, count, round(time.monotonic() - began, 1))

    def covering(self, found: Break) -> tuple[list[str], bool]:
        """The tests known to run the line, the quickest first, and whether there are no others.

        What imports, fixtures and child processes run has no context: of such a line nobody can tell who runs it.
        """
        if self.coverage is None:
            return [], False
        from coverage import CoverageData  # whoever gives such a file has it

        data = CoverageData(str(self.coverage))
        data.read()
        tree = ast.parse(self.sources[found.file])
        around = (
            n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= found.line <= (n.end_lineno or 0)
        )
        starts = {found.line, max((n.lineno for n in around), default=found.line)}
        contexts = {
            context
            for measured in data.measured_files()
            if measured.endswith("/" + found.file)
            for line, those in data.contexts_by_lineno(measured).items()
            if line in starts
            for context in those
        }
        tests = {test for context in contexts if context and (test := self.reach.test_of_context(context))}
        return sorted(tests, key=lambda test: (self._seconds.get(test, 0.5), test)), "" not in contexts

    def _tiers(self, found: Break, covering: list[str], all_known: bool) -> Iterator[tuple[str, list[str], str]]:
        files = self.reach.tests_of(found.file)
        near = files[:NEAREST]
        package = found.file.split("/")[0]
        folders = {PurePath(file).parent for file in near} | {PurePath("tests"), PurePath("tests", package)}
        yield "covering", covering, QUICK
        if not all_known:
            yield "nearest", near, QUICK
            yield "quick", files[NEAREST:], QUICK
        if self.quick:
            return
        yield "processes", [file for file in files if PurePath(file).parent in folders], PROCESSES

    def _noticed(
        self, bench: Bench, found: Break, tests: Sequence[str], expression: str, passed: list[str]
    ) -> str | None:
        """The test that notices, None if none does; `passed` grows by those that pass."""
        while chosen := [test for test in tests if test not in self.unsound]:
            with bench.broken(found):
                outcome = bench.run(["-m", expression, *chosen], [*passed, *self.unsound])
            passed += outcome.passed
            self._learn(outcome)
            if outcome.code in NOTHING_WRONG:
                return None
            name = outcome.failed[0] if outcome.failed else None
            if self._holds_unbroken(bench, name, ["-m", expression, *chosen]):
                return name or "no test can be collected"
        return None

    def _holds_unbroken(self, bench: Bench, name: str | None, arguments: Sequence[str]) -> bool:
        """Whether what failed passes without the break, or can be collected if it could not be."""
        if name in self._sound:
            return True
        if name is None:  # not one test was collected
            if bench.run(["--collect-only", *arguments]).code not in NOTHING_WRONG:
                raise RuntimeError(f"pytest cannot collect without any break either:\n{bench.said()}")
            return True
        holds = bench.run([name] if "::" in name else ["--collect-only", name]).code in NOTHING_WRONG
        wrong = set() if holds else {name, *bench.run(["-m", QUICK, "--maxfail=0", name.split("::")[0]]).failed}
        with self._lock:
            self._sound |= {name} - wrong
            self.unsound |= wrong
        return holds

    def _learn(self, outcome: Outcome) -> None:
        """Remember what every test function takes, all its cases together."""
        functions: dict[str, float] = {}
        for name, seconds in outcome.seconds.items():
            functions[name.split("[")[0]] = functions.get(name.split("[")[0], 0.0) + seconds
        with self._lock:
            self._seconds.update(functions)


def judge_all(
    judge: Judge,
    original: Path,
    place: Path,
    breaks: Sequence[Break],
    jobs: int,
    told: Callable[[Break, Judgement], None],
) -> None:
    """Judge `breaks` on `jobs` benches; `told` hears of each, one at a time, in a thread of its bench."""
    waiting = iter(breaks)
    lock = threading.Lock()
    benches: list[Bench] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            bench = Bench(original, place / str(number))
            with lock:
                benches.append(bench)
            while not errors:
                with lock:
                    found = next(waiting, None)
                if found is None:
                    return
                judgement = judge.judge(bench, found)
                with lock:
                    told(found, judgement)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number], daemon=True) for number in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for bench in benches:
            bench.close()
    if errors:
        raise errors[0]
