"""Whatever a configuration file and overrides hold, the answer is soon a configuration or an error in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.validation.loading import dump_config, load_config, parse_config
from tests.fuzz.fuzzing import EDITS, edited, fuzzed, quick, with_one_changed
from tests.launch.test_config_errors import FRAGMENTS, VALUES, accepted_or_explained, leaves

pytestmark = pytest.mark.slow

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
TEXTS = [path.read_bytes() for path in CONFIGS] + [dump_config(Config()).encode()]
WHOLE = [yaml.safe_load(text) for text in TEXTS]
TAGS = [
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "!!str ",
    "!!timestamp ",
    "!!binary ",
    "!!set ",
    "!!omap ",
    "!!pairs ",
]
PIECES = [*FRAGMENTS, *TAGS, "!!python/object/apply:os.system ", "%YAML 1.1\n", "---\n", "\t", "0x", "1:30", "\\", '"']
MERGES = ["<<: *a\n", "<<: [*a, *a]\n", "a: &a {x: 1}\n", "b: *a\n"]
KEYS = [".".join(path) for path, _ in leaves(Config)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "config.yaml"


@given(pieces=st.lists(st.sampled_from(PIECES + MERGES) | st.text(max_size=4), max_size=20))
@fuzzed
def test_any_text(pieces: list[str], file: Path) -> None:
    file.write_text("".join(pieces), encoding="utf-8")
    with quick():
        accepted_or_explained(lambda: load_config(file))


@given(text=st.sampled_from(TEXTS), edits=EDITS)
@fuzzed
def test_any_accident_to_a_file(text: bytes, edits: list[tuple[float, str, bytes]], file: Path) -> None:
    file.write_bytes(edited(text, edits))
    with quick():
        accepted_or_explained(lambda: load_config(file))


@given(values=st.sampled_from(WHOLE).flatmap(lambda whole: with_one_changed(whole, VALUES)))
@fuzzed
def test_any_value_at_one_place(values: Any) -> None:
    if isinstance(values, dict):
        with quick():
            accepted_or_explained(lambda: parse_config(values))


@given(
    overrides=st.lists(
        st.tuples(
            st.sampled_from(KEYS) | st.text(max_size=8) | st.lists(st.sampled_from(FRAGMENTS)).map(".".join),
            st.text(max_size=8) | st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | VALUES.map(repr),
        ).map("=".join),
        max_size=3,
    )
)
@fuzzed
def test_any_overrides(overrides: list[str]) -> None:
    with quick():
        accepted_or_explained(lambda: load_config(CONFIGS[-1], overrides))
