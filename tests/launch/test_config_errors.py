"""Whatever a configuration file or an override holds, the answer is a configuration or an error in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, Section
from pipeline.config.kinds import annotation_at, kinds_of, section_for
from pipeline.config_loading import load_config, parse_config
from pipeline.errors import ConfigError, UserError

FRAGMENTS = ["data", "stages", "1", "2", "noise", "std", "cuts", "0", "null", "true", "-1", ".nan", "1e9", "layer1"]
FRAGMENTS += [
    "[",
    "]",
    "{",
    "}",
    ":",
    ": ",
    "\n",
    "  ",
    "- ",
    "&a ",
    "*a",
    "!!binary ",
    "2020-99-99",
    "? ",
    "<<: ",
    "'",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def accepted_or_explained(load: Any) -> None:
    """An error names a place or a file, a problem and a remedy; it is never a traceback."""
    try:
        assert isinstance(load(), Config)
        return
    except UserError as caught:
        error = caught
    assert ". " in str(error)
    assert "Input should" not in str(error), "pydantic's own words"
    assert "Value error" not in str(error), "pydantic's own words"
    if isinstance(error, ConfigError):
        assert error.problem
        assert error.remedy


@given(pieces=st.lists(st.sampled_from(FRAGMENTS), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text(pieces: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any_text.yaml"
    path.write_text("".join(pieces))
    accepted_or_explained(lambda: load_config(path))


@given(data=st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes.yaml"
    path.write_bytes(data)
    accepted_or_explained(lambda: load_config(path))


@given(key=st.lists(st.sampled_from([*Config.model_fields, *FRAGMENTS]), max_size=4), text=st.text(max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_override(key: list[str], text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "override.yaml"
    path.write_text("seed: 1\nstages: {1: {noise: {std: 1}}}\nmodel: {cuts: [layer1]}\n")
    accepted_or_explained(lambda: load_config(path, [".".join(key) + "=" + text]))


Leaf = tuple[tuple[str, ...], dict[str, Any]]
"""The path of a key, and what else its section must hold to be of the kind that has the key."""
KIND_VALUES = {"custom": "own:Loss", "vit": "vit_b_16", "module": "torchvision.models:alexnet", "resnet": "resnet18"}


def leaves(section: type[Section], path: tuple[str, ...] = (), beside: dict[str, Any] | None = None) -> list[Leaf]:
    """Every key of the configuration, of every kind of section."""
    found: list[Leaf] = []
    for name in section.model_fields:
        annotation = annotation_at(section, name)
        inner = section_for(annotation, {})
        if kinds := kinds_of(annotation):
            tag = "backbone" if name == "model" else "kind"
            for kind, model in kinds.items():
                value = KIND_VALUES.get(kind, kind)
                needed = {"output": "features"} if kind == "module" else {}
                found += leaves(model, (*path, name), {tag: value, **needed})
        elif inner is not None and name != "stages":
            found += leaves(inner, (*path, name))
        else:
            found.append(((*path, name), beside or {}))
    return found


LEAVES = leaves(Config)
NAMES = [".".join(path) + "".join(f"-{value}" for value in list(beside.values())[:1]) for path, beside in LEAVES]


def nest(path: tuple[str, ...], section: dict[str, Any]) -> dict[str, Any]:
    """`section` as the section at `path`."""
    nested = section
    for name in reversed(path):
        nested = {name: nested}
    return nested


@pytest.mark.parametrize(("path", "beside"), LEAVES, ids=NAMES)
@given(value=VALUES)
@settings(max_examples=25, deadline=None)
def test_any_value_at_any_key(path: tuple[str, ...], beside: dict[str, Any], value: object) -> None:
    accepted_or_explained(lambda: parse_config(nest(path[:-1], {**beside, path[-1]: value})))


@pytest.mark.parametrize(("path", "beside"), LEAVES, ids=NAMES)
def test_every_misspelt_key_is_an_error_that_names_the_right_one(path: tuple[str, ...], beside: dict[str, Any]) -> None:
    wrong = path[-1][:-1] + "x_"
    with pytest.raises(ConfigError) as caught:
        parse_config(nest(path[:-1], {**beside, wrong: 0}))
    assert caught.value.path == ".".join([*path[:-1], wrong])
    assert path[-1] in caught.value.remedy.split("Allowed: ")[1].split(", ")


def test_an_alias_that_holds_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("data: &a {augment: *a}\n")
    with pytest.raises(UserError, match=r"data\.augment\.augment: unknown key"):
        load_config(tmp_path / "loop.yaml")


def test_deep_nesting(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    with pytest.raises(UserError, match="nested too deeply"):
        load_config(tmp_path / "deep.yaml")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"seed": "x" * 1000})
    assert len(str(caught.value)) < 150


def test_the_message_of_an_error_has_place_problem_and_remedy() -> None:
    error = ConfigError("data.root", "it is not there", "Create it")
    assert str(error) == "data.root: it is not there. Create it"
    assert json.dumps([error.path, error.problem, error.remedy]) == '["data.root", "it is not there", "Create it"]'
