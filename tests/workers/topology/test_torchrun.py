"""What the ranks of torchrun tell each other before any link exists; the store may be rank 0's own."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from pipeline.errors import TrainingError
from workers.topology.torchrun import RankFailed, RanksMissing, RunGroup, Store

LONG = 60.0


class Slow:
    """A store that a rank reads slowly, as on a busy machine, or that ends in the middle of it."""

    def __init__(self, store: HashStore, ends: bool = False) -> None:
        self._store, self._ends = store, ends

    def set(self, key: str, value: str) -> None:
        self._store.set(key, value)

    def get(self, key: str) -> bytes:
        if self._ends:
            raise RuntimeError("Connection reset by peer")
        time.sleep(0.3)
        return bytes(self._store.get(key))

    def check(self, keys: list[str]) -> bool:
        return self._store.check(keys)

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        self._store.wait(keys, timeout)


def rank(number: int, store: Store, count: int = 2) -> RunGroup:
    return RunGroup(number, count, number, count, store)


def test_rank_0_stays_until_its_last_word_was_read() -> None:
    """It ended at once, and its store with it: the others reported a lost connection beside the cause."""
    store, heard = HashStore(), []
    follower = threading.Thread(target=lambda: heard.append(rank(1, Slow(store)).look_up("run", LONG)))
    follower.start()
    rank(0, store).publish_last("run", {"run_dir": ""}, LONG)
    assert store.check(["onward/run/read by 1"])
    follower.join(LONG)
    assert heard == [{"run_dir": ""}]


def test_rank_0_does_not_wait_for_who_has_ended() -> None:
    rank(0, HashStore()).publish_last("run", {"run_dir": ""}, 0.1)


def test_rank_0_alone_waits_for_nobody() -> None:
    rank(0, HashStore(), 1).publish_last("run", {"run_dir": ""}, LONG)


def test_a_store_that_ends_while_it_is_read_is_rank_0_gone() -> None:
    store = HashStore()
    rank(0, store).publish("run", {"run_dir": ""})
    with pytest.raises(TrainingError, match="rank 1 heard nothing of rank 0 within 60 s"):
        rank(1, Slow(store, ends=True)).look_up("run", LONG)


def test_who_waits_hears_why_another_rank_has_ended() -> None:
    """Under srun nobody ends the others: they waited for five minutes."""
    store = HashStore()
    rank(2, store, 3).fail("node2 (rank 2): no such file")
    rank(1, store, 3).fail("node2 (rank 1): a later one")
    for wait in (lambda r: r.gather("present", {}, LONG), lambda r: r.look_up("run", LONG)):
        with pytest.raises(RankFailed, match=r"^node2 \(rank 2\): no such file$"):
            wait(rank(0, store, 3))


def test_rank_0_stays_until_the_others_have_read_why_it_ends() -> None:
    store, heard = HashStore(), []

    def follow() -> None:
        try:
            rank(1, store).gather("present", {}, LONG)
        except RankFailed as error:
            heard.append(str(error))

    follower = threading.Thread(target=follow)
    follower.start()
    rank(0, store).fail("it is full", LONG)
    assert store.check(["onward/failed/read by 1"])
    follower.join(LONG)
    assert heard == ["it is full"]


@pytest.mark.parametrize("lie", ["no json", "{}", '{"rank": 7, "problem": "a"}', '{"rank": 1, "problem": 3}'])
def test_what_no_rank_has_written_ends_nobody(lie: str) -> None:
    store = HashStore()
    store.set("onward/failed", lie)
    assert rank(0, store).failed() is None
    rank(0, store, 1).gather("present", {}, LONG)


def test_ranks_that_are_missing_are_counted_and_the_others_known() -> None:
    group = rank(1, HashStore(), 3)
    with pytest.raises(RanksMissing, match=r"rank 0, 2 within 0\.1 s") as missing:
        group.gather("present", {"rank": 1}, 0.1)
    assert missing.value.ranks == [0, 2]
    assert group.given("present") == [{"rank": 1}]
