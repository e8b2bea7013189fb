"""The rules of CONTRIBUTING.md that can be counted: sizes, docstrings, and nothing that unpickles."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = [path for name in ("pipeline", "workers", "launch") for path in sorted((REPOSITORY / name).rglob("*.py"))]
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, P90_FUNCTION = 300, 60, 40
UNPICKLES = re.compile(
    r"\btorch\.load\b|\btorch\.save\b|\b(c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b\s*\.|"
    r"^\s*(import|from)\s+(c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b|allow_pickle\s*=\s*True|"
    r"yaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader|Loader)\b|\beval\(|\bexec\("
)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and number of lines of every function of a file."""
    found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in found]


@pytest.mark.parametrize("path", PACKAGES + TESTS, ids=name_of)
def test_a_file_says_why_it_exists(path: Path) -> None:
    source = path.read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring or not source.strip(), f"{name_of(path)} opens without a docstring"


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_file_is_one_noun_and_fits_a_reader(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE, f"{name_of(path)} has {lines} lines, more than {MAX_FILE}; is it one noun?"
    for name, size in functions(path):
        assert size <= MAX_FUNCTION, f"{name_of(path)}: {name} has {size} lines, more than {MAX_FUNCTION}"


def test_most_functions_are_short() -> None:
    sizes = sorted(size for path in PACKAGES for _, size in functions(path))
    p90 = sizes[len(sizes) * 9 // 10]
    assert p90 <= P90_FUNCTION, f"one function in ten has more than {p90} lines"


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_nothing_unpickles(path: Path) -> None:
    wrong = [line.strip() for line in path.read_text().splitlines() if UNPICKLES.search(line)]
    allowed = [line for line in wrong if re.search(r"\.eval\(|def eval\(", line)]  # torch's evaluation mode
    assert wrong == allowed, f"{name_of(path)} reads or writes what can carry code; use safetensors or JSON: {wrong}"


@pytest.mark.parametrize("path", PACKAGES + TESTS, ids=name_of)
def test_nothing_is_left_unfinished(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    wrong = [line.strip() for line in path.read_text().splitlines() if UNFINISHED.search(line)]
    assert not wrong, f"{name_of(path)}: finish it or leave it out: {wrong}"


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("state = torch.load(path)", True),
        ("import pickle", True),
        ("    from pickle import loads", True),
        ("np.load(path, allow_pickle=True)", True),
        ("yaml.load(text, Loader=yaml.FullLoader)", True),
        ("value = eval(text)", True),
        ("load_file(path)", False),
        ('"""No pickle here."""', False),
    ],
)
def test_the_check_for_pickles_itself(line: str, caught: bool) -> None:
    assert bool(UNPICKLES.search(line)) == caught
