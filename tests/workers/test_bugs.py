"""What has happened to somebody once, why, and that it does not happen again: the processes of a run."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save

from pipeline.config import Config
from pipeline.errors import TrainingError
from pipeline.stage.stage import Stage
from tests.pipeline.small import small_config
from tests.waiting import LIMIT
from tests.workers.stage.test_worker import Reports
from workers.control.channel import ControlClient
from workers.control.failures import Interrupted
from workers.feed.worker_process import Worker
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.messages import Header, Message, TensorSpec
from workers.run.compute import FILL, set_up_compute
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.run.polling import readable
from workers.run.signals import WAKE
from workers.run.tensor_files import NAMES, save_tensors
from workers.snapshots.writer import SnapshotPart, SnapshotWriter
from workers.stage import worker as stage_worker
from workers.stage.heartbeat import ControlListener
from workers.stage.worker import Activity, Snapshots, StageWorker
from workers.topology.rendezvous import START_SECONDS


class Told(Receiver):
    """Batches of a run in mode sequential: block 1 learns at first, then block 2."""

    def __init__(self, batches: list[Message]) -> None:
        super().__init__(
            LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2), TensorSpec((1,), torch.uint8)
        )
        self.batches, self.waits = batches, list[float]()

    def recv(self, timeout: float) -> Message:
        self.waits.append(timeout)
        return self.batches.pop(0)

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Taker(Sender):
    """A link onward that takes everything."""

    def __init__(self) -> None:
        super().__init__(
            LinkAddress("link2", "stage 2", "stage 3", path="", key=b"", depth=2), TensorSpec((1,), torch.uint8)
        )
        self.waits: list[float] = []

    def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
        self.waits.append(timeout)

    def await_room(self, timeout: float) -> None:
        pass

    def peer_gone(self) -> bool:
        return False

    def close(self) -> None:
        pass


def worker_of(batches: list[Message], tmp_path: Path, activity: Activity, onward: Sender | None) -> StageWorker:
    config = small_config(mode="sequential")
    faults, none = Faults((), RunDir(tmp_path), (1,), 1), cast(Snapshots, None)
    return StageWorker(
        stages=[Stage(config, 1, 4)],
        receiver=Told(batches),
        sender=onward,
        control=Reports(),
        timeout=5.0,
        snapshots=none,
        faults=faults,
        activity=activity,
    )


def images(learners: list[int | None], first: int) -> list[Message]:
    """Batches that block 1 learns from, or only passes on to the one that does."""
    pixels = torch.zeros((2, 8, 16, 16, 3), dtype=torch.uint8)
    last = len(learners) - 1
    return [
        Message(Header(first + n, 0, (0.0,) * 4, last=n == last, learner=learner), pixels.clone())
        for n, learner in enumerate(learners)
    ]


def test_what_a_process_does_for_the_first_time_is_not_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that went on from step 4000 with a compiled network was hung at once, and burnt all its restarts.

    Only step 0 was allowed to take its time. In mode sequential a block learns for the first time late.
    """
    activity, seen = Activity(1), list[tuple[int | None, bool]]()
    begin = StageWorker._begin

    def watched(self: StageWorker, stage: Stage, header: Header) -> None:
        begin(self, stage, header)
        seen.append((header.step, activity.first))

    monkeypatch.setattr(stage_worker.StageWorker, "_begin", watched)
    worker_of(images([1, 1, 2, 2], first=4000), tmp_path, activity, None).run()
    firsts = [step for step, first in seen if first]
    assert firsts == [4000, 4000, 4002, 4002], "forward and backward, learning and then passing on"


def test_the_first_batches_may_wait_for_the_first_step_of_a_neighbour(tmp_path: Path) -> None:
    """Stage 3 compiled for six minutes; stage 2 gave up on it after link.timeout, and stage 4 on stage 3."""
    onward = Taker()
    worker = worker_of(images([None] * 6, first=0), tmp_path, Activity(1), onward)
    worker.run()
    assert onward.waits == [5.0 + START_SECONDS] * 4 + [5.0] * 2, "as many as the link holds, and two"
    assert cast(Told, worker.receiver).waits == [5.0 + START_SECONDS] + [5.0] * 5


class OutOfMemory(Faults):
    """The writing of snapshots fails of something that is no OSError."""

    def before_write(self, stage: int, steps: int) -> None:
        if steps == 1:
            raise MemoryError("1.5 GiB could not be allocated")


def test_a_snapshot_that_fails_of_anything_ends_no_thread(tmp_path: Path) -> None:
    """A host ran out of memory: the thread that writes died of it, and two snapshots later training stood still."""
    told: list[SnapshotPart] = []
    run, stage = RunDir(tmp_path), Stage(small_config(), 1, 4)
    with SnapshotWriter(run, told.append, OutOfMemory((), run, (1,), 1)) as writer:
        for steps in (1, 2, 3, 4):
            writer.take(stage, steps)
    assert [taken.steps for taken in told] == [1, 2, 3, 4]
    assert [taken.file is not None for taken in told] == [False, True, True, True]
    assert told[0].problem is not None
    assert told[0].problem.endswith("could not be written (1.5 GiB could not be allocated)")


def test_tensors_are_written_as_the_library_does_without_holding_the_file_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage of 8 GB was held three times while it was written: the copy, the bytes of the file, and again."""
    monkeypatch.setattr("workers.run.tensor_files.PIECE_BYTES", 64)
    source = torch.Generator().manual_seed(0)
    tensors = {f"{letter}.{kind}": torch.zeros(3, 5, dtype=kind) for kind in NAMES for letter in "ba"}
    tensors |= {
        "größe": torch.randn(70, generator=source), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4),
        "turned": torch.randn(6, 9, generator=source).T, "part": torch.randn(20, generator=source)[3:9],
    }  # fmt: skip
    for some in (tensors, {}):
        save_tensors(tmp_path / "file", some)
        assert (tmp_path / "file").read_bytes() == save({name: t.contiguous() for name, t in some.items()})
    digest = save_tensors(tmp_path / "file", tensors)
    assert {name: t.tolist() for name, t in load_file(tmp_path / "file").items()} == {
        name: t.tolist() for name, t in tensors.items()
    }
    assert len(digest) == 64


def test_a_descriptor_beyond_the_thousandth_can_be_waited_for() -> None:
    """A coordinator of 400 stages had 1,100 open files: select.select refuses numbers from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reader, writer = os.pipe()
    high = 1500
    os.dup2(reader, high)
    try:
        assert readable([high], 0.0) == set()
        os.write(writer, b"!")
        assert readable([high, reader], LIMIT) == {high, reader}
        os.read(reader, 1)
        os.close(writer)
        assert readable([high]) == {high}, "the other end has gone"
    finally:
        for descriptor in (high, reader):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Nonsense:
    """A control channel on which something comes that cannot be read."""

    def __init__(self) -> None:
        self.due = threading.Event()

    def poll(self, timeout: float) -> None:
        self.due.wait(LIMIT)
        raise TrainingError("a control message is not JSON")

    def send(self, message: dict[str, Any]) -> None:
        pass


def test_a_coordinator_that_talks_nonsense_is_left() -> None:
    """The thread that hears the coordinator died of a frame that was no JSON, and was deaf to stop from then on."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, WAKE)}
    control = Nonsense()
    watch = ControlListener(cast(ControlClient, control), Activity(1), (signal.SIGTERM,), 60.0, lambda steps: None)
    try:
        with pytest.raises(Interrupted, match="a control message is not JSON"), watch:
            interrupted(control.due)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupted(due: threading.Event) -> None:
    due.set()
    threading.Event().wait(LIMIT)


def test_a_process_that_the_kernel_holds_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed worker hung in a read of a dead network file system, where not even SIGKILL ends it: so did the run."""
    import subprocess

    class Held:
        returncode = None

        def wait(self, timeout: float) -> int:
            raise subprocess.TimeoutExpired("held", timeout)

        def kill(self) -> None:
            pass

    worker = cast(Any, Worker.__new__(Worker))
    reader, writer = os.pipe()
    worker.process, worker._requests, worker._answers = Held(), os.fdopen(writer, "wb"), os.fdopen(reader, "rb")
    assert Worker.close(worker) == -signal.SIGKILL


def test_memory_is_not_filled_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic algorithms fill every new tensor, which took up to a seventh of a step and changes no bit."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        for asked in (False, True):
            monkeypatch.setenv(FILL, "1") if asked else monkeypatch.delenv(FILL, raising=False)
            set_up_compute(Config())
            assert torch.utils.deterministic.fill_uninitialized_memory == asked
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(deterministic)
