"""The loop of a training process with frozen stages computes what the serial run does, and reports which are frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from pipeline.serial import build_stages, serial_step
from tests.pipeline.small import same, small_config, state, views
from workers.links.base import LinkAddress, Receiver
from workers.links.messages import Header, Message, TensorSpec
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.stage.worker import Activity, Snapshots, StageWorker

STEPS = 3


class Batches(Receiver):
    """Three batches, one after the other."""

    def __init__(self) -> None:
        super().__init__(
            LinkAddress("link1", "feed", "stage 1", path="", key=b"", depth=2), TensorSpec((1,), torch.uint8)
        )
        self._left = list(range(STEPS))

    def recv(self, timeout: float) -> Message:
        step = self._left.pop(0)
        return Message(Header(step, 0, (0.0,) * 4, last=not self._left), views(step))

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Reports(list[dict[str, Any]]):
    def send(self, message: dict[str, Any]) -> None:
        self.append(message)


def test_frozen_stages_in_the_loop_of_a_process(tmp_path: Path) -> None:
    config = small_config(stages={1: {"frozen": True}, 3: {"frozen": True}})
    alone, stages, reports = build_stages(config, 4), build_stages(config, 4), Reports()
    for step in range(STEPS):
        list(serial_step(alone, views(step), step, [0.0] * 4))
    worker = StageWorker(
        stages=stages,
        receiver=Batches(),
        sender=None,
        control=reports,
        timeout=10.0,
        snapshots=cast(Snapshots, None),
        faults=Faults((), RunDir(tmp_path), (1, 2, 3, 4), 1),
        activity=Activity(1),
    )
    worker.run()
    assert [same(state(one), state(other)) for one, other in zip(stages, alone, strict=True)] == [True] * 4
    assert not same(state(stages[1]), state(build_stages(config, 4)[1]))
    assert [(report["stage"], report["frozen"]) for report in reports[:4]] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
    ]
    assert all((report["loss"] is None) == report["frozen"] for report in reports)
