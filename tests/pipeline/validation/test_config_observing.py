"""The settings of what is seen of a run: how they may be written, and what is said of those that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.config import Config, TraceConfig, TrackerConfig
from pipeline.errors import ConfigError
from pipeline.validation.loading import dump_config, parse_config


def test_short_forms_stand_for_sections() -> None:
    own: dict[str, Any] = {"kind": "my.sheets:Sheet", "options": {"a": [1]}}
    config = parse_config({"trace": True, "trackers": ["tensorboard", own]})
    assert config.trace == TraceConfig(enabled=True)
    assert config.trackers == (TrackerConfig(kind="tensorboard"), TrackerConfig(**own))
    assert parse_config({"trace": {"from_step": 3}}).trace == TraceConfig(from_step=3)
    assert parse_config({"trace": False}) == Config()
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trackers": ["wandb"]}, "trackers.0.kind: got 'wandb'. It should be tensorboard, or PACKAGE.MODULE:CLASS"),
        ({"trackers": [{"knd": "x"}]}, "trackers.0.knd: unknown key (value 'x'). Did you mean 'kind'?"),
        ({"trackers": "tensorboard"}, "trackers: got 'tensorboard'. It should be a list of names, such as"),
        ({"trackers": [3]}, "trackers.0: got 3 where a section was expected"),
        ({"trace": "yes"}, "trace: got 'yes' where a section was expected. Give true, false or a section"),
        ({"trace": {"max": 1}}, "trace.max: unknown key (value 1). Allowed: enabled, max_events, from_step"),
        ({"alarms": {"bottleneck_above": 0.5}}, "alarms.bottleneck_above: got 0.5. It should be greater than or equal"),
        ({"alarms": {"starved_above": 1.5}}, "alarms.starved_above: got 1.5. It should be less than or equal to 1"),
        ({"alarms": {"silent_seconds": 0}}, "alarms.silent_seconds: got 0. It should be greater than 0"),
        ({"metrics": {"norms_every": -1}}, "metrics.norms_every: got -1. It should be greater than or equal to 0"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert str(caught.value).startswith(words)
