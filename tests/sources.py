"""The source files of the repository, read and parsed once, for the tests that check all of them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = [
    path for name in ("pipeline", "workers", "launch", "onward") for path in sorted((REPOSITORY / name).rglob("*.py"))
]
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    """As it is written in a message: from the root of the repository."""
    return path.relative_to(REPOSITORY).as_posix()


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def assert_clean(paths: Iterable[Path], check: Callable[[Path], Iterator[str]]) -> None:
    """That `check` finds nothing wrong with any of the files; all that it finds is in the message, by file."""
    wrong = [f"{name_of(path)}: {found}" for path in paths for found in check(path)]
    assert not wrong, "\n" + "\n".join(wrong)
