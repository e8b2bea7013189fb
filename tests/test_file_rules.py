"""Files are opened by the helpers that look at what they open; every other place is listed here, with a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import PACKAGES, assert_clean, name_of, tree_of

OPENING = {
    "read_text", "read_bytes", "write_text", "write_bytes", "touch", "open", "fdopen", "symlink_to", "safe_open",
    "load_file", "save_file", "np.load", "np.save", "np.fromfile", "np.memmap", "os.mkfifo", "os.mknod",
}  # fmt: skip
MAY_OPEN = {
    "pipeline/ordinary_files.py": "the helper",
    "pipeline/validation/loading.py": "CONFIG is the user's own and may be a pipe, as a shell's <(...) is",
    "pipeline/data/sets/decoding.py": "images, by PIL",
    "pipeline/data/sets/files.py": "images, a million of them: without waiting, and ordinary files only",
    "pipeline/data/sets/idx.py": "files inside the package",
    "pipeline/data/sets/memory.py": "what the kernel says of memory",
    "pipeline/data/npz.py": "a member of an archive that is in memory",
    "pipeline/evaluation/corrupted_sets.py": "arrays that numpy maps, after a look at them",
    "workers/determinism/verified.py": "a cache of this user's own; what the kernel says of processors",
    "workers/evaluating/robustness.py": "opens a data set",
    "workers/evaluating/feature_source.py": "opens a data set",
    "workers/feed/affinity.py": "what the kernel says of processors",
    "workers/feed/worker_main.py": "the pipe that it was given",
    "workers/links/listening.py": "what the kernel says of descriptors",
    "workers/links/slot_choice.py": "what the kernel says of its start and of namespaces",
    "workers/run/cores.py": "what the kernel says of control groups",
    "workers/run/keys.py": "the key, by a name that no link may have",
    "workers/weights/pickled.py": "a file in memory that it has made",
    "workers/weights/rights.py": "what the kernel says of memory",
    "workers/weights/unpickling.py": "the file that it was given",
    "workers/snapshots/manifest.py": "tensors, of a file that is open",
    "workers/topology/rendezvous.py": "the key, in the private folder",
    "workers/observing/live/page_files.py": "files inside the package",
    "workers/observing/memory.py": "what the kernel says of memory",
    "workers/observing/terminal/safe_stream.py": "/dev/null",
    "workers/run/out_of_memory.py": "what the kernel says of memory",
    "workers/observing/trace_part.py": "what the kernel says of its start",
    "workers/run/private.py": "what the kernel says of users",
    "workers/run/tensor_files.py": "tensors, of a file that is open",
    "launch/processes/waiting_agent.py": "what the kernel says of its parent",
    "launch/plan/fitting.py": "/dev/null",
    "launch/prepare/lock_holders.py": "what the kernel says of locks",
    "launch/prepare/provenance.py": "what the kernel says of processors and GPUs",
    "launch/processes/rank_coordinator.py": "the key, in the private folder",
    "launch/errors.py": "a new temporary file",
    "onward/owners.py": "the lists of installed files",
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def openings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every call that opens a file by its name; our own `write_text(path, ...)` are the helpers."""
    helpers = {"write_text", "write_bytes"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            last = name.rpartition(".")[2] or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
            is_helper = isinstance(node.func, ast.Name) and name in helpers
            if (name in OPENING or last in OPENING) and not is_helper:
                yield node.lineno, name or last


def test_files_are_opened_by_one_helper() -> None:
    def otherwise(path: Path) -> Iterator[str]:
        if name_of(path) not in MAY_OPEN:
            for line, name in openings(tree_of(path)):
                yield f"line {line}: {name}: read and write by pipeline.ordinary_files, or workers.run.files"

    assert_clean(PACKAGES, otherwise)


def test_every_other_place_is_still_needed() -> None:
    found = {name_of(path) for path in PACKAGES if any(openings(tree_of(path)))}
    assert set(MAY_OPEN) - found == set()


def unlimited(tree: ast.AST) -> Iterator[int]:
    """Lines in which PIL may take any format that it knows."""
    for node in ast.walk(tree):
        is_opening = isinstance(node, ast.Call) and dotted(node.func).endswith("Image.open")
        if is_opening and not any(keyword.arg == "formats" for keyword in node.keywords):
            yield node.lineno


def test_pil_is_told_which_formats_an_image_may_have() -> None:
    assert_clean(PACKAGES, lambda path: (f"line {line}: formats= is missing" for line in unlimited(tree_of(path))))


def loose_modes(tree: ast.AST) -> Iterator[str]:
    """Calls that make a file or folder which others may write to, or an `os.open` that leaves its mode open."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        modes = [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
        modes += node.args[1:2] if name.endswith((".chmod", "os.fchmod", "os.mkdir", "os.makedirs")) else []
        if name == "os.open" and "O_CREAT" in ast.dump(node):
            modes += node.args[2:3]
            if not modes:
                yield f"line {node.lineno}: os.open makes a file and says no mode"
        for mode in modes:
            if isinstance(mode, ast.Constant) and isinstance(mode.value, int) and mode.value & 0o022:
                yield f"line {node.lineno}: {name} with mode {mode.value:o}"


def test_what_is_made_is_not_for_others_to_write_to() -> None:
    assert_clean(PACKAGES, lambda path: loose_modes(tree_of(path)))


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("path.read_text()", True),
        ("RunDir(run).report.read_text(encoding='utf-8')", True),
        ("with path.open('ab') as file: pass", True),
        ("open(path)", True),
        ("os.open(path, os.O_RDONLY)", True),
        ("gzip.open(path)", True),
        ("load_file(folder / name)", True),
        ("np.load(path, allow_pickle=False)", True),
        ("mark.touch()", True),
        ("read_whole(path, 10, root)", False),
        ("write_text(path, text)", False),
        ("open_to_read(path, root)", False),
    ],
)
def test_the_check_for_openings_itself(source: str, caught: bool) -> None:
    assert bool(list(openings(ast.parse(source)))) == caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("Image.open(file)", True),
        ("PIL.Image.open(file, 'r')", True),
        ("Image.open(file, formats=FORMATS)", False),
        ("sets.open(file)", False),
    ],
)
def test_the_check_for_formats_itself(source: str, caught: bool) -> None:
    assert bool(list(unlimited(ast.parse(source)))) == caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("os.open(path, os.O_RDWR | os.O_CREAT)", True),
        ("os.open(path, os.O_RDWR | os.O_CREAT, 0o666)", True),
        ("os.chmod(path, 0o777)", True),
        ("path.touch(mode=0o622)", True),
        ("path.mkdir(mode=0o777)", True),
        ("os.open(path, os.O_RDWR | os.O_CREAT, 0o600)", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("path.touch(mode=0o600)", False),
    ],
)
def test_the_check_for_modes_itself(source: str, caught: bool) -> None:
    assert bool(list(loose_modes(ast.parse(source)))) == caught
