"""What two processes measure of a link, and what follows from it."""

from __future__ import annotations

from math import inf, isfinite

import pytest

from launch.partition.finest import cut_everywhere
from launch.partition.measuring_pair import _cost, measured_pair
from pipeline.errors import UserError
from tests.launch.partition.small_runs import small_run


def test_a_link_is_on_the_line_through_two_messages() -> None:
    sent = [
        {"seconds": [1.0, 9.0, 2.0], "at": [10.0, 20.0, 30.0], "bytes": 100},
        {"seconds": [4.0], "at": [50.0], "bytes": 300},
    ]
    received = [
        {"seconds": [1.0, 1.0, 1.0], "at": [14.0, 24.0, 34.0]},
        {"seconds": [3.0], "at": [60.0]},
    ]
    cost = _cost("p2p", sent, received)
    assert (cost.sending, cost.receiving) == ((4 - 2) / 200, (3 - 1) / 200)
    assert cost.message == (2 + 1) / 2
    assert cost.latency == 4 - 1, "without what the receiver itself does"
    assert cost.bandwidth == 200 / (10 - 3 - cost.latency)
    assert _cost("queue", sent, received).bandwidth == inf, "both ends copy everything themselves"


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["queue", "p2p", "rpc"])
def test_two_processes_measure_a_link_and_a_sum(kind: str) -> None:
    pair = measured_pair(cut_everywhere(small_run(link={"kind": kind})), [kind], ["cpu", "cpu"], 1.0)  # type: ignore[list-item]
    (link,) = pair.links.values()
    assert pair.links.keys() == {kind}
    assert link.message > 0
    assert link.sending >= 0 <= link.receiving
    assert link.latency >= 0
    assert link.bandwidth > 0
    assert pair.summing > 0
    assert isfinite(pair.summing)


@pytest.mark.processes
def test_a_process_that_cannot_measure_says_why() -> None:
    with pytest.raises(UserError, match=r"links between two processes of this machine cannot be measured: .*parrot"):
        measured_pair(cut_everywhere(small_run()), ["queue"], ["cpu", "parrot"], 1.0)
