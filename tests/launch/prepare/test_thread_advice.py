"""A better number of threads is named where stages on the CPU have too many for the cores, or too few."""

from __future__ import annotations

from typing import Any

import pytest

from launch.prepare.thread_advice import process_count, ranks_here, thread_advice
from pipeline.config import Config

TOO_MANY = "4 processes with threads=4 want 16 cores, and 8 cores are to be had on this host: threads=2 would be faster"


def advice(cores: int, device: str = "cpu", **values: Any) -> list[str]:
    config = Config.model_validate(values)
    return thread_advice(config, [device] * config.num_stages, process_count(config), cores)


@pytest.mark.parametrize(
    ("values", "cores", "said"),
    [
        ({"threads": 4}, 8, TOO_MANY),
        ({"threads": 2}, 8, None),
        (
            {"threads": 2},
            7,
            "4 processes with threads=2 want 8 cores, and 7 cores are to be had on this host: threads=1",
        ),
        ({"threads": 2}, 1, "want 8 cores, and 1 core is to be had on this host: threads=1 would be faster"),
        ({"threads": 2, "replicas": 2}, 8, "8 processes with threads=2 want 16 cores"),
        ({"threads": 2, "processes": 2}, 8, None),
        ({"threads": 3, "runtime": "serial"}, 2, "1 process with threads=3 want 3 cores"),
        ({}, 9, "9 cores are to be had on this host, and 4 processes with threads=1 use 4 of them: threads=2"),
        ({"threads": 1}, 9, None),
        ({}, 7, None),
        ({}, 2, None),
        ({"runtime": "serial"}, 9, None),
        ({"mode": "end_to_end"}, 4, "give threads=4, as many as there are cores"),
    ],
)
def test_threads_that_do_not_suit_the_cores_are_named(values: dict[str, Any], cores: int, said: str | None) -> None:
    found = advice(cores, **values)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_stages_on_gpus_get_no_advice() -> None:
    assert advice(2, "cuda:0", threads=8) == []


def test_on_several_hosts_those_that_were_started_here_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert ranks_here() == 2
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert ranks_here() is None
