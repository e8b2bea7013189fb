"""What `onward plan` is asked, and refuses before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch.partition.request import asked, check_plannable, constraints_of, what_if_overrides
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import load_config


@pytest.mark.parametrize(
    ("given", "devices", "hosts"),
    [
        ({"gpus": 8}, 8, 1),
        ({"gpus": None, "hosts": 2, "gpus_per_host": 4}, 8, 2),
        ({"gpus": 6, "hosts": 2, "gpus_per_host": 4}, 6, 2),
        ({"gpus": 6, "hosts": 3}, 6, 3),
        ({"gpus": None, "otherwise": 5}, 5, 1),
    ],
)
def test_devices_are_counted_on_all_hosts_together(given: dict[str, Any], devices: int, hosts: int) -> None:
    request = asked(**given)
    assert (request.devices, request.hosts) == (devices, hosts)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gpus": 0}, "--gpus: got 0. Give a number from 1"),
        ({"gpus": None}, "--gpus: how many devices there are is not said"),
        ({"gpus": None, "hosts": 2}, "--gpus: how many devices there are is not said"),
        ({"gpus": 4, "gpus_per_host": 4}, "--gpus-per-host: of how many hosts is not said"),
        ({"gpus": 9, "hosts": 2, "gpus_per_host": 4}, "--gpus: got 9, and 2 hosts of 4 have 8"),
        ({"gpus": 4, "gpu": "h100", "measure": True}, "--measure: it times this machine"),
        ({"gpus": 4, "keep_cuts": True, "stages": "3"}, "--stages: another number of blocks needs other cuts"),
        ({"gpus": 4, "stages": "few"}, "--stages: got 'few'. Give a number of blocks from 1, or any"),
        ({"gpus": 4, "stages": "0"}, "--stages: got '0'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match="^" + expected.replace("(", r"\(")):
        asked(**given)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mode=end_to_end", "^mode: .*nothing to divide"),
        ("mode=sequential", "^mode: .*never busy together"),
        ("runtime=serial", "^runtime: .*nothing to divide"),
        ("stages.2.frozen=true", r"^stages\.2\.frozen: "),
    ],
)
def test_a_run_of_which_there_is_nothing_to_plan_is_refused(repository: Path, override: str, expected: str) -> None:
    config = load_config(repository / "configs/quickstart.yaml", [override])
    with pytest.raises(ConfigError, match=expected):
        check_plannable(config)


def test_a_plan_may_drop_the_smaller_batch_of_an_epoch_and_then_have_replicas(repository: Path) -> None:
    config = load_config(repository / "configs/quickstart.yaml", ["data.drop_last=false"])
    assert constraints_of(config, asked(8)).replicas == (1, 2, 4, 8)


def test_another_number_of_blocks_is_one_number_or_any(repository: Path) -> None:
    config = load_config(repository / "configs/quickstart.yaml")
    units = len(config.model.units())
    assert constraints_of(config, asked(4)).stages == (4,)
    assert constraints_of(config, asked(4, stages="2")).stages == (2,)
    assert constraints_of(config, asked(4, stages="any")).stages == tuple(range(1, units + 1))


def test_commas_divide_changes_outside_of_brackets_and_quotes() -> None:
    text = "stages.2.replicas=2, model.cuts=[layer1, layer2],head={width: 8, projector: [4, 4]},data.root='a,b'"
    assert what_if_overrides(text) == [
        "stages.2.replicas=2",
        "model.cuts=[layer1, layer2]",
        "head={width: 8, projector: [4, 4]}",
        "data.root='a,b'",
    ]


@pytest.mark.parametrize("text", ["", "replicas", "a=1,,b=2", "a=1,b", "a=[1,2", "a='b", "=3", "a=1]"])
def test_changes_that_are_malformed_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"^--what-if: .*Example: --what-if stages\.2\.replicas=2,link\.kind=p2p$"):
        what_if_overrides(text)
