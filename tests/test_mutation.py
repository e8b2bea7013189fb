"""The breaks that `python -m tests.mutation` tries: each is one line of another program, and the draw is the same."""

from __future__ import annotations

import ast
from pathlib import Path, PurePath

import pytest

from tests.mutation.__main__ import ROOT, sources_of
from tests.mutation.breaks import Break, draw, is_a_program
from tests.mutation.reach import Reach
from tests.mutation.search import breaks_of

SOURCE = '''\
"""Docstring."""
from __future__ import annotations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    LIMIT = 1
__all__ = ["seen"]
Kind = Literal["a", "b"]
POLL_SECONDS = 0.5
{line}
'''
BROKEN = {
    "a = b < c": {"a = b <= c"},
    "a = b == c": {"a = b != c"},
    "a = b not in c": {"a = b in c"},
    "a = b is not None": {"a = b is None"},
    "a = b - c": {"a = b + c"},
    "a = b // c": {"a = b * c"},
    "a += b": {"a -= b"},
    "a = b and c": {"a = b or c"},
    "a = not b": {"a = b"},
    "a = [7, True]": {"a = [8, True]", "a = [7, False]"},
    "a = é['key']": {'a = é[""]'},
    "def f(a: int = 3, *, timeout: float = 3.0) -> None: ...": {
        "def f(a: int = 4, *, timeout: float = 3.0) -> None: ..."
    },
    "def f(): return a": {"def f(): return None"},
    "a.b(c)": {"pass"},
    "a.b = c": {"pass"},
    "if a: b = c": {"if not (a): b = c"},
    "if not a: b = c": {"if a: b = c"},
    "for a in b: continue": {"for a in b: break"},
    "a = b if c else d": {"a = b if not (c) else d"},
    'raise ValueError("a")': set(),
    "'''Text.'''": set(),
    'log("a")': {"pass"},
    'a = f"{b + 1}"': set(),
    "a: Literal['b', 'c']": set(),
    "a = 'two words'": set(),
    "sleep(0.5)": {"pass"},
    "a = f(timeout=3)": set(),
    "a = clock.monotonic() > b": set(),
    "@dataclass(frozen=True)\nclass A: ...": set(),
    "if a.is_cuda: b.c()": {"if not (a.is_cuda): b.c()"},
}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return sources_of(ROOT)


@pytest.fixture(scope="module")
def candidates(sources: dict[str, str]) -> list[Break]:
    return [found for file, text in sources.items() for found in breaks_of(file, text)]


@pytest.mark.parametrize("line", BROKEN)
def test_a_line_is_broken_in_these_ways_and_nothing_around_it(line: str) -> None:
    source = SOURCE.replace("{line}", line)
    found = breaks_of("a.py", source)
    assert {each.after for each in found} == BROKEN[line]
    assert all(is_a_program(each, source) for each in found)


def test_an_operator_is_found_on_whichever_line_it_stands() -> None:
    source = "a = (\n    b  # and so on\n    and c\n    or d == e\n)\n"
    assert {(each.line, each.after.strip()) for each in breaks_of("a.py", source)} == {
        (3, "or c"), (4, "and d == e"), (4, "or d != e"),
    }  # fmt: skip


@pytest.mark.slow
def test_the_sample_is_the_same_again_and_leaves_out_no_folder(
    candidates: list[Break], sources: dict[str, str]
) -> None:
    sample = draw(candidates, sources, 150, 1)
    assert len(sample) == len({(found.file, found.line) for found in sample}) == 150
    assert sample == draw(list(candidates), dict(sources), 150, 1) != draw(candidates, sources, 150, 2)
    folders = {PurePath(found.file).parent for found in candidates}
    assert {PurePath(found.file).parent for found in sample} == folders
    assert {PurePath(found.file).parent for found in draw(candidates, sources, 1, 1)} == folders


@pytest.mark.slow
def test_each_of_the_sample_is_one_line_of_another_program(candidates: list[Break], sources: dict[str, str]) -> None:
    for found in draw(candidates, sources, 150, 1)[::4]:
        old, new = sources[found.file].splitlines(), found.applied_to(sources[found.file]).splitlines()
        different = [number for number, pair in enumerate(zip(old, new, strict=True), 1) if len(set(pair)) == 2]
        assert different == [found.line]
        assert ast.dump(ast.parse("\n".join(new))) != ast.dump(ast.parse("\n".join(old)))


def test_a_break_of_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.py:1"):
        Break("a.py", 1, "constant", "a = 1", "a = 2").applied_to("a = 3\n")


def test_the_tests_of_a_file_are_those_that_imports_lead_to_the_nearest_first(tmp_path: Path) -> None:
    for file, text in {
        "pipeline/__init__.py": "",
        "pipeline/a.py": "",
        "launch/b.py": "def f(): from pipeline import a",
        "launch/d.py": "from launch.b import f",
        "tests/conftest.py": "import launch.b\n@pytest.fixture\ndef b(): return launch.b\n@pytest.fixture\ndef c(): 1",
        "tests/helper.py": "import pipeline.a",
        "tests/test_direct.py": "from pipeline.a import f\ndef test_one(): ...",
        "tests/test_helped.py": "from tests.helper import f",
        "tests/test_a.py": "from tests.helper import something_longer",
        "tests/test_fixture.py": "def test_one(b): ...",
        "tests/test_other_fixture.py": "def test_one(c): ...",
        "tests/pipeline/test_process.py": "run('-m', 'launch.d')",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    reach = Reach(tmp_path)
    direct, near, far = ["test_direct"], ["test_a", "test_fixture", "test_helped"], ["pipeline/test_process"]
    assert reach.tests_of("pipeline/a.py") == [f"tests/{name}.py" for name in direct + near + far]
    assert reach.test_of_context("tests.test_direct.test_one") == "tests/test_direct.py::test_one"
    assert reach.test_of_context("tests/test_direct.py::test_one[case]|run") == "tests/test_direct.py::test_one"
    assert reach.test_of_context("tests.test_direct.helper") is None
