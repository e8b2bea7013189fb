"""What the loop of a training process reports of its time, on a CPU and on a device that lags behind it."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from pipeline.precision import Compute
from pipeline.stage.stage import Stage
from tests.pipeline.small import small_config
from tests.workers.stage.streams import START, Stream, Time, batches, launched_on
from workers.control.step_report import StageTimes
from workers.coordinator import health as health_module
from workers.coordinator.health import Health, Heartbeat
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.messages import Header, Message, TensorSpec
from workers.observing.observer import TIMES
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.stage import worker as stage_worker
from workers.stage.device_clock import DeviceClock
from workers.stage.flops import StepFlops
from workers.stage.plain_steps import PlainSteps
from workers.stage.worker import Activity, Snapshots, StageWorker

STEPS = 4
INPUT, COPY, COLOURS, ROOM = 2.0, 0.5, 8.0, 64.0
FORWARD, BACKWARD = 16.0, 4.0
ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)


class Images(Receiver):
    """Waits for images, copies them to the device, and works on their colours."""

    def __init__(self, time: Time, stream: Stream | None) -> None:
        super().__init__(ADDRESS, TensorSpec((1,), torch.uint8))
        self._time, self._stream = time, stream
        self._left = list(enumerate(batches(STEPS)))

    def recv(self, timeout: float) -> Message:
        self._time.pass_by(INPUT)
        self._meter("waiting")
        self._work(COPY, wait=True)
        self._meter("copying")
        self._work(COLOURS)
        self._meter("computing")
        step, images = self._left.pop(0)
        return Message(Header(step, 0, (0.0,) * 4, last=not self._left), images)

    def _work(self, seconds: float, wait: bool = False) -> None:
        if self._stream is None:
            return self._time.pass_by(seconds)
        self._stream.launch(seconds)
        return self._stream.synchronize() if wait else None

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Onward(Sender):
    """Waits for room, and copies what the device has computed by then."""

    def __init__(self, time: Time, stream: Stream | None, room: float = ROOM) -> None:
        super().__init__(ADDRESS, TensorSpec((1,), torch.uint8))
        self._time, self._stream, self._room = time, stream, room
        self.done: list[float] = []
        """When each batch was sent."""

    def await_room(self, timeout: float) -> None:
        self._time.pass_by(self._room)

    def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
        self.await_room(timeout)
        self._meter("waiting")
        if self._stream is None:
            self._time.pass_by(COPY)
        else:
            self._stream.launch(COPY)
            self._stream.synchronize()
        self._meter("copying")
        self.done.append(self._time.now)

    def close(self) -> None:
        pass


class Reports(list[dict[str, Any]]):
    """A control channel that keeps what it is sent, each with the time at which it was."""

    def __init__(self, time: Time | None = None) -> None:
        self._time, self.at = time or Time(), list[float]()

    def send(self, message: dict[str, Any]) -> None:
        self.append(message)
        self.at.append(self._time.now)
        self._time.pass_by(1.0)


def worker_of(
    stage: Stage, receiver: Receiver, sender: Sender | None, reports: Reports, clock: DeviceClock, tmp_path: Path
) -> StageWorker:
    return StageWorker(
        stages=[stage],
        receiver=receiver,
        sender=sender,
        control=reports,
        timeout=5.0,
        snapshots=cast(Snapshots, None),
        faults=Faults((), RunDir(tmp_path), (1,), 1),
        activity=Activity(1),
        clock=clock,
    )


def lasting(time: Time, stage: Stage, forward: float, update: float) -> Stage:
    """The stage, whose passes take so long on a CPU."""
    step = stage.engine.step

    def step_engine() -> bool:
        time.pass_by(update)
        return step()

    stage.register_forward_hook(lambda *_: time.pass_by(forward))
    stage.engine.step = step_engine  # type: ignore[method-assign]
    return stage


def spent(report: dict[str, Any]) -> float:
    return sum(report[name] for name in TIMES)


def test_on_a_cpu_the_four_shares_add_up_to_the_time_of_every_step(tmp_path: Path) -> None:
    """Finishing colours is work of the first stage: else a run would be told to raise data.workers for it."""
    time = Time()
    stage, told = lasting(time, Stage(small_config(), 1, 4), FORWARD, BACKWARD), Reports(time)
    worker_of(stage, Images(time, None), Onward(time, None), told, DeviceClock(now=time), tmp_path).run()
    assert [spent(report) for report in told] == [at - START for at in told.at]
    assert [report["flops"] for report in told] == [n * told[0]["flops"] for n in range(1, STEPS + 1)]
    assert told[0]["flops"] > 0
    last = told[-1]
    assert last["wait_input"] == STEPS * INPUT
    assert last["wait_output"] == STEPS * ROOM
    assert last["copying"] == STEPS * 2 * COPY
    assert last["busy"] == STEPS * (COLOURS + FORWARD + BACKWARD) + STEPS - 1, "the last report itself is in none"


def test_the_first_step_of_a_compiled_stage_is_the_compilers_and_its_operations_are_counted(tmp_path: Path) -> None:
    """Its length says nothing of the steps after it; the waiting in it is waiting."""
    time, config = Time(), small_config()
    stage, told = lasting(time, Stage(config, 1, 4), FORWARD, BACKWARD), Reports(time)
    settings = stage.compute.config.model_copy(update={"compile": True})
    stage.compute = Compute(settings, stage.compute.device, torch.float32)
    stage.register_forward_hook(lambda *_: time.pass_by(1000.0 * (not told)))
    worker = worker_of(stage, Images(time, None), Onward(time, None), told, DeviceClock(now=time), tmp_path)
    worker.plain = PlainSteps(config, 4)
    worker.run()
    last = told[-1]
    assert last["busy"] == (STEPS - 1) * (FORWARD + BACKWARD) + (STEPS - 2) * (COLOURS + 1.0), "1: of the report before"
    assert [last["wait_input"], last["wait_output"], last["copying"]] == [STEPS * INPUT, STEPS * ROOM, STEPS * 2 * COPY]
    images, written = batches(1)[0], StageTimes()
    with StepFlops().counted(plain := Stage(config, 1, 4), written):
        plain(images, 0, 0.0)
        plain.update(0)
    assert [report["flops"] for report in told] == [n * written.flops for n in range(1, STEPS + 1)]


def test_stages_of_one_process_have_the_time_of_their_own(tmp_path: Path) -> None:
    """What is received is the first one's, what is sent the last one's; both together have all of it."""
    time = Time()
    told, config = Reports(time), small_config()
    stages = [lasting(time, Stage(config, 1, 4), 1.0, 2.0), lasting(time, Stage(config, 2, 4), 4.0, 8.0)]
    worker = worker_of(stages[0], Images(time, None), Onward(time, None), told, DeviceClock(now=time), tmp_path)
    worker.stages = stages
    worker.run()
    of_first, of_last = told[::2], told[1::2]
    assert [report["stage"] for report in told] == [1, 2] * STEPS
    assert of_first[-1]["busy"] == STEPS * (COLOURS + 1.0 + 2.0) + STEPS - 1
    assert of_last[-1]["busy"] == STEPS * (4.0 + 8.0) + STEPS - 1
    assert (of_first[-1]["wait_input"], of_first[-1]["wait_output"]) == (STEPS * INPUT, 0.0)
    assert (of_last[-1]["wait_input"], of_last[-1]["wait_output"]) == (0.0, STEPS * ROOM)
    assert of_first[-1]["copying"] == of_last[-1]["copying"] == STEPS * COPY
    assert spent(of_first[-1]) + 1.0 + spent(of_last[-1]) == told.at[-1] - START, "and the report of the first"


@pytest.mark.parametrize("room", [0.0, ROOM])
def test_what_was_launched_is_computing_while_its_process_waits(tmp_path: Path, room: float) -> None:
    """The launch of the forward pass returns at once, and its kernels end while there is no room, or in the copy."""
    time = Time()
    stream = Stream(time)
    stage, told = launched_on(stream, Stage(small_config(), 1, 4), FORWARD, BACKWARD), Reports(time)
    onward, clock = Onward(time, stream, room), stream.clock()
    worker = worker_of(stage, Images(time, stream), onward, told, clock, tmp_path)
    worker.run()
    # The optimizer's kernels are launched after the loss was read, and images come meanwhile. No report waits for
    # them: the next one has the update.
    on_device = COLOURS + FORWARD + 2 * BACKWARD
    assert [report["busy"] for report in told] == [n * on_device - 2 * BACKWARD for n in range(1, STEPS + 1)]
    assert told[-1]["wait_input"] == INPUT, "of the first step alone: later ones were there before the device was ready"
    assert told[-1]["wait_output"] == STEPS * max(room - COLOURS - FORWARD, 0.0)
    assert told[-1]["copying"] == STEPS * 2 * COPY
    assert [spent(report) for report in told] == [at - START for at in onward.done], "nothing is lost or counted twice"
    stream.synchronize()
    clock.settle()
    assert sum(getattr(worker._times[1], name) for name in TIMES) == time.now - START


@pytest.mark.parametrize("kernel", [FORWARD, inf], ids=["ends", "hangs"])
def test_a_kernel_that_hangs_is_found_while_its_process_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: float
) -> None:
    """A process that waits for room may wait as long as it must; one whose device still computes hangs."""
    time, limit = Time(), 60.0
    for module in (stage_worker, health_module):
        monkeypatch.setattr(module, "time", time)
    stream = Stream(time)
    stage, told = launched_on(stream, Stage(small_config(), 1, 4), kernel, BACKWARD), Reports(time)
    health, seen = Health(limit), list[tuple[float | None, str | None]]()
    health.add(["stage 1"])

    class Full(Onward):
        def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
            for _ in range(3):
                since = worker.activity.computing_since()
                computing = None if since is None else time.now - since
                health.record(
                    "stage 1", Heartbeat(1, header.step, computing, worker.activity.first and header.step < 1)
                )
                hung = health.find_hung()
                seen.append((computing, hung.cause if hung else None))
                time.pass_by(limit - 10.0)
            raise InterruptedError

    worker = worker_of(stage, Images(time, stream), Full(time, stream), told, stream.clock(), tmp_path)
    worker._done_before = {(1, True)}
    with pytest.raises(InterruptedError):
        worker.run()
    if kernel == inf:
        assert seen == [(0.0, None), (50.0, None), (100.0, "it has been computing for 100 s (hang_timeout)")]
    else:
        assert seen == [(0.0, None), (None, None), (None, None)]


def test_a_process_that_waits_for_images_computes_until_its_device_is_idle(tmp_path: Path) -> None:
    time = Time()
    stream = Stream(time)
    stage, seen = launched_on(stream, Stage(small_config(), 1, 4), FORWARD, BACKWARD), list[bool]()

    class Asked(Images):
        def recv(self, timeout: float) -> Message:
            seen.append(worker.activity.computing_since() is not None)
            time.pass_by(BACKWARD)
            seen.append(worker.activity.computing_since() is not None)
            return super().recv(timeout)

    worker = worker_of(stage, Asked(time, stream), None, Reports(time), stream.clock(), tmp_path)
    worker.run()
    assert seen == [False, False] + [True, False] * (STEPS - 1), "the optimizer's kernels, before the first step none"
