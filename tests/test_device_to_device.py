"""Runs whose stages take themselves to be on GPUs: over rings of handles and over pinned memory, with stages that die.

Memory of these GPUs is shared memory (`tests.workers.links.fake_gpu`), and everything else is a run: processes, handles
as bytes, restarts.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import STEPS, disturbed, fault, faults
from tests.runs import LIMIT, report, train

pytestmark = pytest.mark.processes
ON_GPUS = "objective.kind=tests.workers.links.loss_on_gpus:OnGpus"
WAYS = {"true": "device to device (CUDA IPC)", "false": "pinned host memory: link.device_to_device is false"}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("serial")
    done = train(folder, *STEPS, ON_GPUS, "runtime=serial")
    assert done.returncode == 0, done.stderr
    return str(report(folder)["final_digest"])


@pytest.mark.parametrize("device_to_device", ["true", slow("false")])
def test_stages_that_die_open_their_links_again_and_the_bits_are_those_of_the_serial_run(
    tmp_path: Path, serial: str, device_to_device: str
) -> None:
    with disturbed(tmp_path) as trial:
        struck = faults(fault("kill", 2, 6), fault("kill", 3, 9))
        process = trial.start(
            ON_GPUS, "restart=stage", f"link.device_to_device={device_to_device}", "link.kind=queue", struck
        )
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert trial.digest == serial
        said = re.findall(r"(stage \d) -> (stage \d): queue, (.+)$", out, re.M)
        assert {way for *_, way in said} == {WAYS[device_to_device]}
        opened = [(sender, receiver) for sender, receiver, _ in said]
        assert {pair: opened.count(pair) for pair in opened} == {
            ("stage 1", "stage 2"): 2, ("stage 2", "stage 3"): 3, ("stage 3", "stage 4"): 2,
        }  # fmt: skip
