"""The house: a folder says who runs it, its first lines say what each file is, and imports run down its floors."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import PACKAGES, REPOSITORY, assert_clean, name_of, tree_of
from tests.test_layers import imports_of

FLOORS = {
    "pipeline": (
        "errors", "randomness", "ordinary_files", "config", "plugins", "replicas", "recompute", "backbones", "data",
        "shapes", "objectives", "optim", "engines", "precision", "measures", "stage", "serial", "evaluation",
        "validation",
    ),
    "workers": (
        "run", "links", "control", "topology", "snapshots", "throughput", "observing", "feed", "evaluating", "wiring",
        "determinism", "weights", "replaying", "coordinator", "stage", "serial_run",
    ),
    "launch": (
        "errors", "failure", "prepare", "plan", "partition", "results", "pages", "processes", "hosts", "doctor",
        "exporting", "verifying", "commands", "train", "evaluate", "cli",
    ),
    "onward": (
        "owners", "overrides", "steps", "notebook", "config", "run", "objects", "objects_run", "here",
        "command_process", "training", "results", "planning", "trained", "__main__",
    ),
}  # fmt: skip
"""Rooms of each package, the lowest first: what a file imports of its own package lies in its room or below."""
LOOSE = 18
"""Files beside the folders, in the roots of the three packages behind `onward` together."""
OLD_WORDS = {
    "agenda", "arrival", "attend", "become", "bury", "fan", "gate", "goodbye", "greet", "hear", "hire", "keeper",
    "meeting", "members", "outlet", "oversight", "owed", "owing", "parcel", "pulse", "reception",
    "remembered", "said", "sending", "slept", "spoken", "teller", "telling", "told", "verdict", "voice",
}  # fmt: skip
"""Pictures of our own that had the place of the field's terms; no file, class or function is called so again."""


def room_of(module: str) -> tuple[str, str] | None:
    """Package and room of a dotted name, `workers.links.p2p` lies in `links`; None if it is none of ours."""
    package, _, rest = module.partition(".")
    room = rest.split(".")[0]
    return (package, room) if room in FLOORS.get(package, ()) else None


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def upward(module: str, imported: str) -> bool:
    """Whether an import runs up, or between two rooms whose order nobody has given."""
    mine, other = room_of(module), room_of(imported)
    if mine is None or other is None or mine[0] != other[0]:
        return False
    floors = FLOORS[mine[0]]
    return floors.index(other[1]) > floors.index(mine[1])


def test_imports_run_down_the_floors() -> None:
    def up(path: Path) -> Iterator[str]:
        for found in imports_of(path):
            if upward(module_of(path), found):
                yield f"imports {found}, which lies above it in tests/test_layout.py"

    assert_clean(PACKAGES, up)


def test_every_room_has_its_floor() -> None:
    for package, floors in FLOORS.items():
        folder = REPOSITORY / package
        rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert rooms - {"__init__"} == set(floors), package


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("workers.links.p2p", "workers.coordinator.monitor", True),
        ("workers.coordinator.monitor", "workers.links.p2p", False),
        ("workers.links.p2p", "workers.links.wire", False),
        ("workers.links.p2p", "pipeline.serial", False),
        ("pipeline.errors", "pipeline.serial.serial_step", True),
    ],
)
def test_the_check_of_the_floors_itself(module: str, imported: str, wrong: bool) -> None:
    assert upward(module, imported) is wrong


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that import each other, by however many others."""
    reached: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        ahead = list(arrows[start])
        while ahead:
            if (file := ahead.pop()) not in seen:
                seen.add(file)
                ahead += arrows.get(file, ())
        reached[start] = seen
    groups = {frozenset(other for other in reached[file] if file in reached.get(other, ())) for file in reached}
    return sorted(sorted(group) for group in groups if group)


def test_no_two_files_import_each_other() -> None:
    files = {module_of(path): path for path in PACKAGES}
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, path in files.items():
        for found in imports_of(path):
            target = found if found in files else found.rpartition(".")[0]
            if target in files and target != module:
                arrows[module].add(target)
    assert not circles(arrows)


def test_the_search_for_circles_itself() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}})


def test_every_file_has_its_line_in_the_docstring_of_its_folder() -> None:
    missing = []
    for init in (path for path in PACKAGES if path.name == "__init__.py"):
        text = ast.get_docstring(tree_of(init)) or ""
        beside = [path for path in init.parent.iterdir() if path.suffix == ".py" and path != init]
        names = [path.name for path in beside]
        names += [f"{path.name}/" for path in init.parent.iterdir() if (path / "__init__.py").exists()]
        missing += [f"{name_of(init)}: `{name}`" for name in names if f"- `{name}`: " not in text]
        told = [line.split("`")[1] for line in text.splitlines() if line.startswith("- `")]
        missing += [f"{name_of(init)}: `{name}` is gone" for name in told if name not in names]
    assert not missing, "\n".join(missing)


def test_few_files_lie_beside_the_folders() -> None:
    loose = [name_of(p) for p in PACKAGES if name_of(p).count("/") == 1 and not name_of(p).startswith("onward/")]
    assert len(loose) <= LOOSE, loose


def words_of(name: str) -> set[str]:
    """The words that a name is made of, in lower case."""
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


def test_the_old_words_do_not_come_back() -> None:
    def old(path: Path) -> Iterator[str]:
        defined = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef | ast.FunctionDef))
        for name in (path.stem, *(node.name for node in defined)):
            if found := words_of(name) & OLD_WORDS:
                yield f"{name}: '{found.pop()}' is no term of the field; see OLD_WORDS"

    assert_clean(PACKAGES, old)
    assert words_of("_GlooArrival") & OLD_WORDS == words_of("next_arrival") & OLD_WORDS == {"arrival"}


def test_what_is_no_code_in_a_package_is_installed_with_it() -> None:
    """A wheel has of other files only those that `package-data` names: templates, the live page, images."""
    data = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {
        path for package, globs in data.items() for glob in globs
        for path in (REPOSITORY / package.replace(".", "/")).glob(glob)
    }  # fmt: skip
    others = {
        path for package in FLOORS for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }  # fmt: skip
    assert others - named == set()
    assert any(path.parent.name == "templates" for path in others)
