"""The section `evaluation`: what a run resolves to reads back, and what is wrong is named with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.validation.loading import dump_config, load_config, parse_config
from pipeline.validation.paths import with_absolute_paths

GIVEN: dict[str, Any] = {
    "linear": ["quick", "byol"],
    "places": ["projector"],
    "blocks": [2],
    "corruptions": {"names": ["fog", "contrast"], "severities": [1, 5]},
    "transfer": [{"name": "mnist", "root": "folder"}],
    "few_labels": {"shares": [0.01, 1.0]},
}


def test_what_is_resolved_reads_back(tmp_path: Path) -> None:
    for given in ({}, GIVEN):
        config = with_absolute_paths(parse_config({"evaluation": given}))
        (tmp_path / "config.yaml").write_text(dump_config(config))
        assert load_config(tmp_path / "config.yaml") == config
    assert config.evaluation.corruptions.names == ("fog", "contrast")
    assert parse_config({"evaluation": {"corruptions": {"names": "all"}}}).evaluation.corruptions.names == "all"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"linear": "quick"}, r"^evaluation\.linear: got 'quick'\. It should be a list"),
        ({"linear": ["quik"]}, r"^evaluation\.linear\.0: unknown value 'quik'\. Did you mean 'quick'\?"),
        ({"places": ["stem"]}, r"^evaluation\.places\.0: unknown value 'stem'"),
        ({"blocks": [0]}, r"^evaluation\.blocks\.0: got 0\. It should be greater than 0"),
        ({"knn": {"k": [20, 0]}}, r"^evaluation\.knn\.k\.1: got 0"),
        ({"knn": {"temperature": 0}}, r"^evaluation\.knn\.temperature: got 0"),
        ({"few_labels": {"shares": [1.5]}}, r"^evaluation\.few_labels\.shares\.0: got 1\.5"),
        ({"quality": {"views": 1}}, r"^evaluation\.quality\.views: got 1"),
        ({"quality": {"ranks": [100, 6]}}, r"^evaluation\.quality\.ranks: got \[100, 6\], and the first must be below"),
        ({"quality": {"ranks": [6]}}, r"^evaluation\.quality\.ranks: got \[6\]\. It should be a list of 2 values"),
        (
            {"corruptions": {"names": "fog"}},
            r"^evaluation\.corruptions\.names: got 'fog'\. Allowed: none, standard, all",
        ),
        ({"corruptions": {"names": [3]}}, r"^evaluation\.corruptions\.names: got \[3\]\. Allowed: none, standard, all"),
        ({"corruptions": {"severities": [6]}}, r"^evaluation\.corruptions\.severities\.0: got 6"),
        ({"transfer": [{"nam": "mnist"}]}, r"^evaluation\.transfer\.0\.nam: unknown key .* Did you mean 'name'\?"),
        ({"online": {"every": 3}}, r"^evaluation\.online\.every: unknown key"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"evaluation": given})
