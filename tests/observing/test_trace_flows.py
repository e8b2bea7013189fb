"""Which slices of a trace arrows begin and end at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.observing.traces import MS, header, write_part
from workers.observing.trace_flows import LEAST, arrows, share_rows
from workers.observing.trace_part import Slice, read_part


def ends(folder: Path, *events: Slice) -> list[tuple[str, str]]:
    """Of the trace of a process that trains stages 1 and 2: the kind of end, and the name of its slice."""
    part = read_part(write_part(folder, header("stages 1-2", 0, [1, 2]), events))
    found = arrows([part], {"here": 0})
    return sorted((kind, each.name) for (_, each), of_slice in found.items() for kind, _ in of_slice)


def test_an_arrow_goes_from_a_forward_pass_to_its_sending(tmp_path: Path) -> None:
    pair = Slice("stage 2", "forward", 0, LEAST, 0), Slice("stage 2", "send", 10 * MS, LEAST, 0)
    assert ends(tmp_path, *pair) == [("f", "send"), ("s", "forward")]


@pytest.mark.parametrize(
    ("forward", "send"),
    [
        ((LEAST - 1, 0), (LEAST, 0)),
        ((LEAST, 0), (LEAST - 1, 0)),
        ((LEAST, None), (LEAST, None)),
        ((LEAST, 0), (LEAST, 1)),
    ],
    ids=["no length of the first", "no length of the second", "no step", "another step"],
)
def test_a_slice_without_a_length_or_without_a_step_has_no_arrow(
    tmp_path: Path, forward: tuple[int, int | None], send: tuple[int, int | None]
) -> None:
    """It could not be bound to the one, and nobody knows where it belongs of the other."""
    pair = Slice("stage 2", "forward", 0, *forward), Slice("stage 2", "send", 10 * MS, *send)
    assert ends(tmp_path, *pair) == []


def test_other_slices_have_no_arrows(tmp_path: Path) -> None:
    events = Slice("stage 2", "forward", 0, MS, 0), Slice("stage 2", "update", 10 * MS, MS, 0)
    assert ends(tmp_path, *events) == []


@pytest.mark.parametrize(
    ("senders", "receivers", "pairs"),
    [(1, 1, {(0, 0)}), (2, 4, {(0, 0), (0, 1), (1, 2), (1, 3)}), (3, 2, {(0, 0), (1, 0), (1, 1), (2, 1)})],
)
def test_replicas_share_rows_where_their_parts_of_the_batch_overlap(
    senders: int, receivers: int, pairs: set[tuple[int, int]]
) -> None:
    found = {(i, j) for i in range(senders) for j in range(receivers) if share_rows(i, senders, j, receivers)}
    assert found == pairs
