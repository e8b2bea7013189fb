"""Silent processes, and whether they are those of a whole host."""

from __future__ import annotations

import pytest

from workers.coordinator.silent_hosts import SHOWN, not_connected, silent_host, unreachable

HOSTS = {"stage 1": "node1", "stage 2": "node1", "stage 3": "node2", "stage 4": "node2", "stage 5": "node3"}
FRESH = dict.fromkeys(HOSTS, 0.5)


@pytest.mark.parametrize(
    ("silent", "host"),
    [
        ((), None),
        (("stage 3",), None),
        (("stage 3", "stage 4"), "node2"),
        (("stage 5",), "node3"),
        (("stage 1", "stage 2"), None),
        (("stage 2", "stage 3"), None),
    ],
    ids=["nobody", "one of two", "a host", "the only one", "the coordinator's own", "on two hosts"],
)
def test_a_host_is_silent_when_all_its_processes_are(silent: tuple[str, ...], host: str | None) -> None:
    assert silent_host(HOSTS, FRESH | dict.fromkeys(silent, 8.0), 5.0) == host


def test_a_process_that_has_ended_does_not_speak_for_its_host() -> None:
    watched = {name: seconds for name, seconds in FRESH.items() if name != "stage 4"}
    assert silent_host(HOSTS, watched | {"stage 3": 8.0}, 5.0) == "node2"
    assert silent_host(HOSTS, {"stage 1": 0.5}, 5.0) is None


def test_the_host_and_its_stages_are_named_once() -> None:
    found = unreachable(HOSTS, FRESH | {"stage 3": 10.2, "stage 4": 9.8}, 5.0, 7)
    assert found is not None
    assert str(found.error()) == (
        "stage 3, stage 4 failed at step 7: host node2 is unreachable: no sign of life for 10 s (hang_timeout) of any "
        "process there; it is stopped or cut off"
    )


def test_where_every_other_host_is_silent_it_is_the_own_that_is_cut_off() -> None:
    found = unreachable(HOSTS, FRESH | dict.fromkeys(("stage 3", "stage 4", "stage 5"), 10.0), 5.0, 7)
    assert found is not None
    assert found.who == "stage 3, stage 4, stage 5"
    assert found.cause.startswith("no other host is reachable from node1, which is cut off: ")
    assert found.cause.endswith(" of node2, node3")


def test_on_one_host_nothing_is_said_of_hosts() -> None:
    assert unreachable({}, FRESH, 0.0, None) is None
    assert not_connected(["stage 2"], {}, 300.0).kind == "timeout"


def test_many_processes_are_counted() -> None:
    hosts = {"stage 1": "node1"} | {f"stage {k} replica {k}": "node2" for k in range(2, 64)}
    found = unreachable(hosts, dict.fromkeys(hosts, 9.0), 5.0, None)
    assert found is not None
    assert found.who.endswith(f" and {62 - SHOWN} more")
    assert len(found.who) <= 200
    cause = not_connected(list(hosts), hosts, 300.0).cause
    assert "stage 1 on node1, stage 2 replica 2 on node2, " in cause
    assert f" and {63 - SHOWN} more did not connect to the coordinator within 300 s" in cause
