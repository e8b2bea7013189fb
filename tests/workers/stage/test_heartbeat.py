"""What a training process hears of the coordinator while it trains, and while it only waits for others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from pipeline.errors import TrainingError
from tests.waiting import LIMIT, wait_until
from workers.control.channel import ControlClient, ControlClosed
from workers.control.failures import Interrupted
from workers.run.signals import PARENT_GONE, WAKE
from workers.stage import heartbeat as module
from workers.stage.heartbeat import ControlListener
from workers.stage.worker import Activity


class Channel:
    """A control channel on which a test speaks."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any] | Exception] = []
        self.due = threading.Semaphore(0)
        self.sent: list[dict[str, Any]] = []
        self.deaf = False
        self.nccl = False

    def write_stacks(self) -> bool:
        self.sent.append({"type": "written"})
        return self.nccl

    def say(self, *messages: dict[str, Any] | Exception) -> None:
        for message in messages:
            self.waiting.append(message)
            self.due.release()

    def poll(self, timeout: float) -> dict[str, Any] | None:
        if not self.due.acquire(timeout=timeout):
            return None
        found = self.waiting.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def send(self, message: dict[str, Any]) -> None:
        if self.deaf:
            raise ControlClosed("the coordinator has gone")
        self.sent.append(message)


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts handlers back."""
    numbers = (signal.SIGUSR1, PARENT_GONE, WAKE)
    previous = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def listener_of(channel: Channel, committed: list[int] | None = None, beat: float = LIMIT) -> ControlListener:
    told = (committed if committed is not None else []).append
    control = cast(ControlClient, channel)
    return ControlListener(control, Activity(1), (signal.SIGUSR1,), beat, told, stacks=channel.write_stacks)


def test_whoever_waits_for_others_serves_them_until_the_run_is_over(channel: Channel) -> None:
    listener, served = listener_of(channel), []

    def serve() -> None:
        served.append(1)
        if len(served) == 2:
            listener.finished.set()

    listener.wait_for_end(serve, LIMIT)
    assert len(served) == 2


def test_whoever_waits_for_others_waits_no_longer_than_told(channel: Channel) -> None:
    served: list[int] = []
    listener_of(channel).wait_for_end(lambda: served.append(1), 0.0)
    assert served == []


@pytest.mark.parametrize("over", [True, False])
def test_a_wait_is_cut_short_by_the_end_of_the_run_and_by_nothing_else(channel: Channel, over: bool) -> None:
    listener = listener_of(channel)

    def serve() -> None:
        if over:
            listener.finished.set()
        raise Interrupted("asked to stop")

    if over:
        listener.wait_for_end(serve, LIMIT)
        return
    with pytest.raises(Interrupted):
        listener.wait_for_end(serve, LIMIT)


def test_snapshots_that_are_complete_are_passed_on_until_the_run_is_over(channel: Channel, signals: None) -> None:
    committed: list[int] = []
    channel.say({"type": "committed", "steps": 4}, {"type": "another"}, {"type": "committed", "steps": 8})
    channel.say({"type": "finish"}, {"type": "committed", "steps": 12})
    with listener_of(channel, committed) as listener:
        assert listener.finished.wait(LIMIT)
        assert committed == [4, 8]
        assert channel.waiting == [{"type": "committed", "steps": 12}]


@pytest.mark.parametrize("nccl", [False, True])
def test_stacks_are_written_before_that_is_said(channel: Channel, signals: None, nccl: bool) -> None:
    channel.nccl = nccl
    channel.say({"type": "stacks"}, {"type": "finish"})
    with listener_of(channel) as listener:
        assert listener.finished.wait(LIMIT)
    assert channel.sent == [{"type": "written"}, {"type": "stacks", "nccl": nccl}]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ({"type": "stop"}, "the coordinator ended the run"),
        (TrainingError("the coordinator has gone"), "the coordinator has gone"),
    ],
)
def test_whatever_a_process_does_is_interrupted_when_the_run_is_stopped(
    channel: Channel, signals: None, word: dict[str, Any] | Exception, why: str
) -> None:
    def work() -> None:
        channel.say(word)
        threading.Event().wait(LIMIT)

    with pytest.raises(Interrupted, match=why), listener_of(channel):
        work()


def test_a_signal_asks_the_coordinator_and_the_next_one_interrupts(channel: Channel, signals: None) -> None:
    def ask_twice() -> None:
        signal.raise_signal(signal.SIGUSR1)
        wait_until(lambda: channel.sent, "the wish to stop")
        signal.raise_signal(signal.SIGUSR1)
        threading.Event().wait(LIMIT)

    with pytest.raises(Interrupted, match="asked to stop by SIGUSR1"), listener_of(channel):
        ask_twice()
    assert channel.sent == [{"type": "leave", "why": "asked to stop by SIGUSR1"}]


def test_the_end_of_the_launcher_asks_once_however_often_it_is_told(channel: Channel, signals: None) -> None:
    """The system tells it for every thread of torchrun; the second counted as a user's second Ctrl-C."""
    stop_signals = ControlListener(
        cast(ControlClient, channel), Activity(1), (PARENT_GONE,), 1000.0, lambda steps: None
    )
    with stop_signals:
        for _ in range(3):
            signal.raise_signal(PARENT_GONE)
        wait_until(lambda: channel.sent, "the wish to leave")
    assert channel.sent == [{"type": "leave", "why": "asked to stop by the end of its launcher"}]


def test_a_sign_of_life_says_where_the_process_is(channel: Channel, signals: None) -> None:
    listener = listener_of(channel, beat=0.001)
    listener._activity.stage, listener._activity.step = 2, 7
    with listener:
        wait_until(lambda: channel.sent, "a sign of life")
    assert channel.sent[0] == {
        "type": "beat", "stage": 2, "step": 7, "computing": None, "first": channel.sent[0]["first"],
    }  # fmt: skip


def test_a_coordinator_that_has_gone_is_no_failure_of_a_sign_of_life(channel: Channel) -> None:
    channel.deaf = True
    listener_of(channel)._send({"type": "beat"})
    assert channel.sent == []


class Left(BaseException):
    """Stands for the end of the process."""


def test_a_process_that_cannot_be_interrupted_ends_at_once(
    channel: Channel, signals: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in a call that no signal ends, such as one of a driver."""

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(module, "FORCE_SECONDS", 0.0)
    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(Left, match="1"):
        listener_of(channel)._interrupt("the coordinator ended the run")
    assert "stuck in a call that cannot be interrupted" in caplog.text


def test_a_process_that_is_leaving_already_is_left_alone(channel: Channel, signals: None) -> None:
    signal.signal(WAKE, lambda number, frame: pytest.fail("it was interrupted"))
    listener = listener_of(channel)
    listener._over.set()
    listener._interrupt("the coordinator ended the run")
    listener._on_wake(WAKE, None)
