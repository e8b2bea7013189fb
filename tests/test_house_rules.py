"""The rules of CONTRIBUTING.md that can be counted: sizes, docstrings, keywords, no pickles, no asserted clock."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import PACKAGES, REPOSITORY, TESTS, assert_clean, text_of, tree_of

MAX_FILE, MAX_FUNCTION, P90_FUNCTION = 300, 60, 40
MAX_POSITIONAL = 5
"""Arguments of a constructor that may be given without their names."""
UNPICKLES = re.compile(
    r"^[^\"'`]*\btorch\.(load|save)\b|\b(c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b\s*\.|"
    r"^\s*(import|from)\s+(c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b|allow_pickle\s*=\s*True|"
    r"yaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader|Loader)\b|\beval\(|\bexec\("
)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
CLOCKS = {"time", "monotonic", "perf_counter", "process_time", "time_ns", "monotonic_ns", "perf_counter_ns", "now"}
RATES = re.compile(r"images/s|_per_second")


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and number of lines of every function of a file."""
    found = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef))
    return [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in found]


def test_a_file_says_why_it_exists() -> None:
    def silent(path: Path) -> Iterator[str]:
        if text_of(path).strip() and not ast.get_docstring(tree_of(path)):
            yield "opens without a docstring"

    assert_clean(PACKAGES + TESTS, silent)


def test_a_file_is_one_noun_and_fits_a_reader() -> None:
    def long(path: Path) -> Iterator[str]:
        lines = len(text_of(path).splitlines())
        if lines > MAX_FILE:
            yield f"{lines} lines, more than {MAX_FILE}; is it one noun?"

    assert_clean(PACKAGES + TESTS, long)


def test_a_function_fits_a_screen() -> None:
    def long(path: Path) -> Iterator[str]:
        for name, size in functions(path):
            if size > MAX_FUNCTION:
                yield f"{name} has {size} lines, more than {MAX_FUNCTION}"

    assert_clean(PACKAGES, long)


def test_most_functions_are_short() -> None:
    sizes = sorted(size for path in PACKAGES for _, size in functions(path))
    p90 = sizes[len(sizes) * 9 // 10]
    assert p90 <= P90_FUNCTION, f"one function in ten has more than {p90} lines"


def positional(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name of every class, and how many arguments its own constructor takes without their names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                yield node.name, len(method.args.posonlyargs) + len(method.args.args) - 1
        decorator = next((ast.unparse(found) for found in node.decorator_list if "dataclass" in ast.unparse(found)), "")
        if decorator and "kw_only=True" not in decorator:
            yield node.name, _positional_fields(node)


def _positional_fields(node: ast.ClassDef) -> int:
    count = 0
    for field in node.body:
        if isinstance(field, ast.AnnAssign):
            annotation, value = ast.unparse(field.annotation), ast.unparse(field.value) if field.value else ""
            if annotation == "KW_ONLY":
                return count
            count += not annotation.startswith("ClassVar") and "init=False" not in value
    return count


def test_constructors_of_many_arguments_take_names() -> None:
    def unnamed(path: Path) -> Iterator[str]:
        for name, count in positional(tree_of(path)):
            if count > MAX_POSITIONAL:
                yield f"{name} takes {count} arguments without their names; put * or KW_ONLY before the sixth"

    assert_clean(PACKAGES, unnamed)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("class A:\n    def __init__(self, a, b, *, c): ...", 2),
        (
            "@dataclass\nclass A:\n    a: int\n    b: int = 0\n    c: ClassVar[int]\n    d: int = field(init=False)",
            2,
        ),
        ("@dataclass(frozen=True)\nclass A:\n    a: int\n    _: KW_ONLY\n    b: int", 1),
        ("@dataclass(frozen=True, kw_only=True)\nclass A:\n    a: int", None),
        ("class A(NamedTuple):\n    a: int", None),
    ],
)
def test_the_check_for_constructors_itself(source: str, count: int | None) -> None:
    assert next((found for _, found in positional(ast.parse(source))), None) == count


def test_nothing_unpickles() -> None:
    def unpickling(path: Path) -> Iterator[str]:
        for line in text_of(path).splitlines():
            if UNPICKLES.search(line) and not re.search(r"\.eval\(|def eval\(", line):  # torch's evaluation mode
                yield f"reads or writes what can carry code; use safetensors or JSON: {line.strip()}"

    # But for the process without rights, whose file tests/test_unpickling.py looks at.
    assert_clean([path for path in PACKAGES if path.name != "unpickling.py"], unpickling)


def test_nothing_is_left_unfinished() -> None:
    def unfinished(path: Path) -> Iterator[str]:
        for line in text_of(path).splitlines():
            if UNFINISHED.search(line):
                yield f"finish it or leave it out: {line.strip()}"

    assert_clean([path for path in PACKAGES + TESTS if path != Path(__file__).resolve()], unfinished)


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


def timed(tree: ast.AST) -> Iterator[int]:
    """Lines of assertions about a reading of a clock, what is computed from one, or a rate."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.Module):
            readings: set[str] = set()
            for node in _in_order(scope):
                if isinstance(node, ast.Assign) and _is_reading(node.value, readings):
                    readings.update(name.id for name in node.targets if isinstance(name, ast.Name))
                elif isinstance(node, ast.Assert) and any(_of_time(part, readings) for part in ast.walk(node.test)):
                    yield node.lineno


def _in_order(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but for those of inner functions, which are scopes of their own."""
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, ast.FunctionDef):
            yield node
            yield from _in_order(node)


def _is_reading(value: ast.AST, readings: set[str]) -> bool:
    if isinstance(value, ast.BinOp):
        return _is_reading(value.left, readings) or _is_reading(value.right, readings)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr in CLOCKS and not value.args
    return isinstance(value, ast.Name) and value.id in readings


def _of_time(node: ast.AST, readings: set[str]) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(RATES.search(node.value))
    return _is_reading(node, readings) or (isinstance(node, ast.Attribute) and bool(RATES.search(node.attr)))


def test_no_assertion_is_about_how_fast_a_machine_is() -> None:
    benchmarks = REPOSITORY / "tests" / "benchmarks"

    def against_the_clock(path: Path) -> Iterator[str]:
        for line in sorted(set(timed(tree_of(path)))):
            yield f"line {line} asserts a time or a rate; wait with tests/waiting.py, measure in tests/benchmarks"

    assert_clean([path for path in TESTS if benchmarks not in path.parents], against_the_clock)


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("assert time.monotonic() < deadline", True),
        ("def test():\n    started = time.monotonic()\n    assert time.perf_counter() - started < 1", True),
        ("def test():\n    began = time.time()\n    taken = time.time() - began\n    assert taken < 1", True),
        ("assert report['images_per_second'] > 100", True),
        ("assert report.images_per_second", True),
        ("assert re.search(r'\\d images/s', text)", True),
        ("def test():\n    if slow:\n        end = 5 + time.monotonic()\n        assert after < end", True),
        ("def test():\n    now = time.time()\n    assert history(now) == [1]", True),
        ("def test():\n    def inner():\n        now = time.time()\n    assert now", False),
        ("assert line['time'] == 3.0", False),
        ("history.step_done(time.time())\nassert history.steps == 1", False),
        ("assert RATE.search(text)", False),
    ],
)
def test_the_check_for_clocks_itself(source: str, caught: bool) -> None:
    assert bool(list(timed(ast.parse(source)))) == caught


def interpreters(tree: ast.AST) -> Iterator[int]:
    """Lines that start Python other than by `workers.run.environment.interpreter`, which says `-P`."""
    inside = {
        id(part)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and any(_starts_safely(argument) for argument in call.args)
        for part in call.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inside and ast.unparse(node) == "sys.executable":
            yield node.lineno
        words = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.List | ast.Tuple) else ()
        if any(isinstance(word, ast.Constant) and word.value in ("python", "python3") for word in words):
            yield words[0].lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {name.name for name in node.names}
            if "multiprocessing" in names or (
                module == "multiprocessing" and names & {"Process", "Pool", "get_context"}
            ):
                yield node.lineno


def _starts_safely(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Call) and ast.unparse(argument.func) == "interpreter"


def test_every_process_is_started_without_the_working_directory_on_its_path() -> None:
    allowed = REPOSITORY / "workers" / "run" / "environment.py"

    def unsafe(path: Path) -> Iterator[str]:
        for line in interpreters(tree_of(path)):
            yield f"line {line} starts Python by itself; use workers.run.environment.interpreter, which says -P"

    assert_clean([path for path in PACKAGES if path != allowed], unsafe)
    assert list(interpreters(tree_of(allowed)))
    assert re.search(r"return \[sys\.executable, \"-P\", \"-m\"", text_of(allowed))


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("subprocess.Popen([sys.executable, '-m', 'json.tool'])", True),
        ("os.execvp('python3', ['python3', 'x.py'])", True),
        ("import multiprocessing", True),
        ("from multiprocessing import Process", True),
        ("os.execve(sys.executable, interpreter('launch.train', *more), environment)", False),
        ("subprocess.Popen(interpreter('launch.train'))", False),
        ("from multiprocessing.connection import Connection", False),
        ("from multiprocessing import AuthenticationError", False),
    ],
)
def test_the_check_for_interpreters_itself(source: str, caught: bool) -> None:
    assert bool(list(interpreters(ast.parse(source)))) == caught
