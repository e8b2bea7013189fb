"""Every key of the configuration says what it is, where it is defined: that is the reference that users are sent to."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

import pytest

from pipeline.config import Section, StageConfig
from pipeline.config.kinds import annotation_at, kinds_of
from tests.sources import REPOSITORY, tree_of

FILES = sorted((REPOSITORY / "pipeline" / "config").glob("*.py"))


def documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The keys that a class body defines, in order, each with the text below it, which may be empty."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            told = following.value if isinstance(following, ast.Expr) else None
            yield statement.target.id, told.value if isinstance(told, ast.Constant) else ""


def sections() -> dict[type[Section], dict[str, str]]:
    """All models with the keys that they define themselves; not what a stage makes of them, which nobody writes."""
    found = {}
    for path in FILES:
        module = importlib.import_module(f"pipeline.config.{path.stem}")
        for node in ast.walk(tree_of(path)):
            model = getattr(module, node.name) if isinstance(node, ast.ClassDef) else None
            if isinstance(node, ast.ClassDef) and isinstance(model, type) and issubclass(model, Section):
                found[model] = dict(documented(node.body))
    return {model: keys for model, keys in found.items() if model not in (Section, StageConfig)}


SECTIONS = sections()


def is_explained_elsewhere(model: type[Section], name: str) -> bool:
    """A section by its class, the name of a kind by the class of that kind, a key of a base class there."""
    if any(SECTIONS.get(base, {}).get(name) for base in model.__mro__[1:]):
        return True
    annotation = annotation_at(model, name)
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    names_its_kind = len(getattr(annotation, "__args__", ())) == 1 and name == "kind"
    return is_section or bool(kinds_of(annotation)) or names_its_kind


@pytest.mark.parametrize("model", SECTIONS, ids=lambda model: model.__name__)
def test_every_key_has_a_docstring(model: type[Section]) -> None:
    assert model.__doc__
    assert model.__doc__ != Section.__doc__
    keys = SECTIONS[model].items()
    silent = [name for name, told in keys if not told and not is_explained_elsewhere(model, name)]
    assert not silent, f"say below each key what it is, its unit, and what its default means: {', '.join(silent)}"
    unended = [name for name, told in keys if told and not told.rstrip().endswith(".")]
    assert not unended, f"docstrings that are no sentence: {', '.join(unended)}"


def test_all_sections_are_looked_at() -> None:
    names = {model.__name__ for model in SECTIONS}
    assert {
        "Config",
        "DataConfig",
        "VICRegConfig",
        "OnlineConfig",
        "FaultConfig",
        "StageOverrides",
        "ViTConfig",
    } <= names
    assert sum(len(keys) for keys in SECTIONS.values()) > 200


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ("class A:\n    a: int = 1\n    'Images a step.'\n    b: int = 2", ["b"]),
        ("class A:\n    a: int = 1\n    b: int = 2\n    'Images a step.'", ["a"]),
        ("class A:\n    a: int = 1\n    'One.'\n    def f(self) -> None: ...", []),
    ],
)
def test_the_check_for_docstrings_itself(source: str, silent: list[str]) -> None:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert [name for name, told in documented(node.body) if not told] == silent
