"""Whatever a configuration file or an override holds, the answer is a configuration or an error in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, Section
from pipeline.config.kinds import annotation_at, kinds_of, section_for
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import load_config, parse_config

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
@settings(max_examples=300)
def test_any_text(pieces: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any_text.yaml"
    path.write_text("".join(pieces))
    accepted_or_explained(lambda: load_config(path))


@given(data=st.binary(max_size=60))
@settings(max_examples=100)
def test_any_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes.yaml"
    path.write_bytes(data)
    accepted_or_explained(lambda: load_config(path))


@given(key=st.lists(st.sampled_from([*Config.model_fields, *FRAGMENTS]), max_size=4), text=st.text(max_size=8))
@settings(max_examples=300)
def test_any_override(key: list[str], text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "override.yaml"
    path.write_text("seed: 1\nstages: {1: {noise: {std: 1}}}\nmodel: {cuts: [layer1]}\n")
    accepted_or_explained(lambda: load_config(path, [".".join(key) + "=" + text]))


Leaf = tuple[tuple[str, ...], dict[str, Any]]
"""The path of a key, and what else its section must hold to be of the kind that has the key."""
KIND_VALUES = {
    "custom": "own:Loss", "vit": "vit_b_16", "module": "torchvision.models:alexnet", "resnet": "resnet18",
    "timm": "timm/resnet18",
}  # fmt: skip


def leaves(section: type[Section], path: tuple[str, ...] = (), beside: dict[str, Any] | None = None) -> list[Leaf]:
    """Every key of the configuration, of every kind of section."""
    found: list[Leaf] = []
    for name in section.model_fields:
        annotation = annotation_at(section, name)
        inner = section_for(annotation, {})
        if get_origin(annotation) is tuple and inner is not None:  # a list of sections: its first
            found += leaves(inner, (*path, name, "0"))
        elif kinds := kinds_of(annotation):
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


def nest(path: tuple[str, ...], section: dict[str, Any]) -> dict[str, Any]:
    """`section` as the section at `path`."""
    nested: Any = section
    for name in reversed(path):
        nested = [nested] if name == "0" else {name: nested}
    whole: dict[str, Any] = nested
    return whole


@pytest.fixture(scope="module")
def odd_values() -> list[object]:
    """Drawn once for all keys, each of which takes some: drawing takes longer than what is done with them."""
    drawn: list[object] = []

    @given(value=VALUES)
    @settings(max_examples=200)
    def draw(value: object) -> None:
        drawn.append(value)

    draw()
    return list({repr(value): value for value in drawn}.values())


@pytest.mark.long
def test_any_value_at_any_key(odd_values: list[object]) -> None:
    wrong = []
    for path, beside in LEAVES:
        for value in (*Random(".".join(path)).sample(odd_values, 10), "no value of any key"):
            try:
                accepted_or_explained(lambda: parse_config(nest(path[:-1], {**beside, path[-1]: value})))  # noqa: B023
            except Exception as error:
                wrong.append(f"{'.'.join(path)}={value!r}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_every_misspelt_key_is_an_error_that_names_the_right_one() -> None:
    wrong = []
    for path, beside in LEAVES:
        misspelt = path[-1][:-1] + "x_"
        with pytest.raises(ConfigError) as caught:
            parse_config(nest(path[:-1], {**beside, misspelt: 0}))
        allowed = caught.value.remedy.partition("Allowed: ")[2].split(", ")
        if caught.value.path != ".".join([*path[:-1], misspelt]) or path[-1] not in allowed:
            wrong.append(f"{'.'.join(path)}: {caught.value}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("faults", "path", "problem"),
    [
        ([{"kind": "kill", "step": 3}], "faults.0.stage", "is missing"),
        ([{"kind": "kill", "stage": 1, "step": 0}, 7], "faults.1", "got 7 where a section was expected"),
        ({"kind": "kill"}, "faults", 'got {"kind": "kill"}'),
        ([{"kind": "kil", "stage": 1, "step": 0}], "faults.0.kind", "unknown value 'kil'"),
        ([{"kind": "slow", "stage": 1, "step": 0, "seconds": 0}], "faults.0.seconds", "got 0"),
    ],
)
def test_a_list_of_sections_names_the_item_and_its_keys(faults: object, path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"faults": faults})
    assert (caught.value.path, caught.value.problem) == (path, problem)
    if "section" in caught.value.remedy or "section" in problem:
        assert "kind, stage, step" in caught.value.remedy


BOMBS = {
    "aliases": "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "merges": "a0: &a0 {x: 1, y: 2}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
    "digits": "seed: " + "1" * 200_000 + "x\n",
    "sixties": "seed: " + ":".join(["59"] * 2000) + ".5\n",
    "hexadecimal": "seed: 0x" + "f" * 100_000 + "\n",
    "tag of a truth": "seed: !!bool maybe\n",
    "tag of nothing": "seed: !!int ''\n",
    "tag of a date": "seed: !!timestamp soon\n",
    "half a character": 'run_dir: "\\uD800"\n',
    "null byte": 'run_dir: "\\0"\n',
    "endless": "# " + "x" * 300_000 + "\n",
    "braces": "{" * 1100,
}


MAX_CALLS = 10_000_000
"""Of functions: the longest of these texts takes 1.2 million, a dozen lines whose aliases are followed 10 to the 10."""


def with_little_work(load: Callable[[], object]) -> None:
    """What is done is counted, not timed: that is the same on every machine."""
    calls = count(1)

    def look(*_: object) -> None:
        assert next(calls) <= MAX_CALLS, "there is no end to it"

    sys.setprofile(look)
    try:
        load()
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_text_takes_long_or_ends_in_a_traceback(bomb: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMBS[bomb])
    with pytest.raises(UserError) as caught:
        with_little_work(lambda: load_config(tmp_path / "bomb.yaml"))
    assert len(str(caught.value)) < 1000
    with pytest.raises(UserError):
        load_config(tmp_path / "bomb.yaml", ["a0.x=1", "a1.x=1", "seed.x=1"])


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than 262144 bytes"):
        load_config("/dev/zero")


def test_a_value_that_holds_itself_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("data: &a [*a]\n")
    with pytest.raises(ConfigError, match="not a section"):
        load_config(tmp_path / "loop.yaml", ["data.batch_size=4"])


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    for values in ({"\x1b[2J": 1}, {"stages": {"\x1b[2J": {}}}, {"device": "\x1b[2J"}, {"data": {"\x9b2J": 1}}):
        with pytest.raises(ConfigError) as caught:
            parse_config(values)
        assert str(caught.value).isprintable()


def test_an_alias_that_holds_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("data: &a {augment: *a}\n")
    with pytest.raises(UserError, match=r"data\.augment\.augment: unknown key"):
        load_config(tmp_path / "loop.yaml")


def test_deep_nesting(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    with pytest.raises(UserError, match=r"nested too deeply|exceeded maximum nesting depth"):
        load_config(tmp_path / "deep.yaml")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"seed": "x" * 1000})
    assert len(str(caught.value)) < 150


def test_the_message_of_an_error_has_place_problem_and_remedy() -> None:
    error = ConfigError("data.root", "it is not there", "Create it")
    assert str(error) == "data.root: it is not there. Create it"
    assert json.dumps([error.path, error.problem, error.remedy]) == '["data.root", "it is not there", "Create it"]'
