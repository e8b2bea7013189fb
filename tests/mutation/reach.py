"""Which tests can see a file: those from which imports lead to it, the nearest first, or those known to run a line."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePath

ROOTS = ("pipeline", "workers", "launch", "onward", "tests")
NAMED = re.compile(r"\b(?:pipeline|workers|launch|tests)(?:\.\w+)+")
"""A module in a text: of a script for `python -c`, or a name for `python -m`."""
_Fixtures = dict[str, dict[str, ast.Module]]


class Reach:
    """The imports of a checkout, wherever they stand: at the top, in a function, or as a name for `python -m`.

    A test file also imports what the fixtures import that it asks for.
    """

    def __init__(self, root: Path) -> None:
        files = sorted(path.relative_to(root).as_posix() for name in ROOTS for path in (root / name).rglob("*.py"))
        self._modules = {_module(file): file for file in files}
        trees = {file: ast.parse((root / file).read_text()) for file in files}
        self._importers: dict[str, set[str]] = defaultdict(set)
        self._sizes = {file: (root / file).stat().st_size for file in files}
        self._tests = {file: _names_of_tests(tree) for file, tree in trees.items() if is_test(file)}
        fixtures = {file: _fixtures(tree) for file, tree in trees.items() if PurePath(file).name == "conftest.py"}
        for file, tree in trees.items():
            for imported in self._imports_of(file, tree):
                self._importers[imported].add(file)
            if is_test(file):
                for imported in self._imports_of_fixtures(file, tree, fixtures):
                    self._importers[imported].add(file)

    def tests_of(self, file: str) -> list[str]:
        """Every test file from which imports lead to `file`: the nearest first, then those with a like name, then the
        smallest."""
        steps, edge, distance = {file: 0}, {file}, 0
        while edge:
            distance += 1
            edge = {importer for each in edge for importer in self._importers[each]} - steps.keys()
            steps.update(dict.fromkeys(edge, distance))
        stem = PurePath(file).stem

        def order(test: str) -> tuple[int, bool, int, str]:
            return steps[test], stem not in PurePath(test).stem, self._sizes[test], test

        return sorted(filter(is_test, steps), key=order)

    def test_of_context(self, context: str) -> str | None:
        """`tests/x/test_y.py::test_z` for `tests.x.test_y.test_z`, as coverage writes it, or pytest-cov's own form."""
        name = context.split("|")[0].split("[")[0]
        if "::" in name:
            return name if name.split("::")[0] in self._tests else None
        parts = name.split(".")
        for length in range(len(parts) - 1, 0, -1):
            file = self._modules.get(".".join(parts[:length]))
            if file is not None:
                known = parts[-1] in self._tests.get(file, ())
                return "::".join([file, *parts[length:]]) if known else None
        return None

    def _imports_of(self, file: str, tree: ast.Module) -> set[str]:
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names += NAMED.findall(node.value)
        return {found for name in names for found in self._files_of(name)} - {file}

    def _files_of(self, name: str) -> Iterator[str]:
        """The module that `name` is, or is a part of, and the packages around it, which are run too."""
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            if (file := self._modules.get(".".join(parts[:length]))) is not None:
                yield file

    def _imports_of_fixtures(self, file: str, tree: ast.Module, fixtures: _Fixtures) -> Iterator[str]:
        asked = {argument.arg for argument in ast.walk(tree) if isinstance(argument, ast.arg)}
        for place, offered in fixtures.items():
            if PurePath(place).parent in PurePath(file).parents:
                for name in asked & offered.keys():
                    yield from self._imports_of(place, offered[name])


def is_test(file: str) -> bool:
    """Whether pytest collects this file."""
    return file.startswith("tests/") and PurePath(file).name.startswith("test_")


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _names_of_tests(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test")}


def _fixtures(tree: ast.Module) -> dict[str, ast.Module]:
    """Every fixture of a conftest.py with the imports at the top of it that it uses."""
    heads = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(each) for each in node.decorator_list):
            text = ast.unparse(node)
            used = [head for head in heads if any((each.asname or each.name) in text for each in head.names)]
            found[node.name] = ast.Module([*used, node], [])
    return found
