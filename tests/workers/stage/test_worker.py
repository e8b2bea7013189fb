"""What the loop of a training process reports of its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from pipeline.stage.stage import Stage
from tests.pipeline.small import small_config
from workers.links.base import LinkAddress, Receiver
from workers.links.messages import Header, Message, TensorSpec
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.stage import worker as stage_worker
from workers.stage.worker import Activity, Snapshots, StageWorker

WAITED, WORKED = 2.0, 5.0


class Clock:
    """A clock that only the link moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class SlowColours(Receiver):
    """Waits a little for images, and works longer on their colours."""

    def __init__(self, batches: list[Message], clock: Clock) -> None:
        super().__init__(
            LinkAddress("link0", "coordinator", "stage 1", path="", key=b"", depth=2), TensorSpec((1,), torch.uint8)
        )
        self._batches, self._clock = batches, clock

    def recv(self, timeout: float) -> Message:
        self._clock.now += WAITED + WORKED
        self.compute_seconds += WORKED
        return self._batches.pop(0)

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Reports(list[dict[str, Any]]):
    """A control channel that keeps what it is sent."""

    def send(self, message: dict[str, Any]) -> None:
        self.append(message)


def test_finishing_colours_is_work_of_the_first_stage_and_no_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would be told to raise data.workers because its own device is slow."""
    config = small_config()
    size = config.data.image_size
    images = torch.zeros((2, 8, size, size, 3), dtype=torch.uint8)
    batches = [Message(Header(step, 0, (0.0,) * 4, last=step == 1), images.clone()) for step in range(2)]
    told, clock = Reports(), Clock()
    monkeypatch.setattr(stage_worker, "time", clock)
    faults, snapshots = Faults((), RunDir(tmp_path), (1,), 1), cast(Snapshots, None)
    link, activity = SlowColours(batches, clock), Activity(1)
    StageWorker(
        stages=[Stage(config, 1, 4)],
        receiver=link,
        sender=None,
        control=told,
        timeout=5.0,
        snapshots=snapshots,
        faults=faults,
        activity=activity,
    ).run()
    assert [report["busy"] for report in told] == [WORKED, 2 * WORKED]
    assert [report["wait_input"] for report in told] == [WAITED, 2 * WAITED]
