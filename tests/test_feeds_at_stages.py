"""Real runs whose first stage reads its images itself, or finishes their colours: the bits of every other run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.recovery import STEPS, Trial, disturbed, fault, faults, undisturbed
from tests.runs import LIMIT, report, train, wait_for_steps

pytestmark = pytest.mark.processes

STAGES, DEVICE = "data.feed=stages", "data.augment_on=device"


def digest(folder: Path, *overrides: str) -> str:
    folder.mkdir(exist_ok=True)
    result = train(folder, *STEPS, *overrides)
    assert result.returncode == 0, result.stderr
    return str(report(folder)["final_digest"])


@pytest.mark.parametrize("link", ["queue", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rpc", "p2p"))])
def test_a_stage_that_reads_itself_trains_the_same_bits(tmp_path: Path, link: str) -> None:
    assert digest(tmp_path, STAGES, f"link.kind={link}") == undisturbed()
    found = report(tmp_path)["feed"]
    assert found["images"] == 12 * 64
    assert found["memory_bytes"] > 0
    assert found["seconds"]["crop"] > 0
    log = (tmp_path / "run" / "logs" / "coordinator.log").read_text()
    assert "feed" not in log


def test_a_run_of_one_process_ignores_who_reads(tmp_path: Path) -> None:
    assert digest(tmp_path, STAGES, "runtime=serial") == undisturbed()


def test_replicas_read_their_own_rows(tmp_path: Path) -> None:
    replicas = ("stages.1.replicas=2", "stages.2.replicas=1")
    expected = digest(tmp_path / "coordinator", *replicas)
    assert digest(tmp_path / "stages", *replicas, STAGES, "data.workers=1") == expected
    assert report(tmp_path / "stages")["feed"]["images"] == 12 * 32  # of the one that speaks for both


def test_colours_on_the_device_are_the_same_in_every_run(tmp_path: Path) -> None:
    alone = undisturbed(DEVICE)
    assert alone != undisturbed()
    assert digest(tmp_path / "pipelined", DEVICE) == alone
    assert digest(tmp_path / "stages", DEVICE, STAGES, "link.kind=p2p") == alone
    assert report(tmp_path / "stages")["feed"]["seconds"]["blur"] == 0


@pytest.mark.slow
def test_replicas_finish_the_colours_of_their_rows(tmp_path: Path) -> None:
    replicas = ("stages.1.replicas=2", "noise.kind=none", DEVICE)
    assert digest(tmp_path / "coordinator", *replicas) == digest(tmp_path / "stages", *replicas, STAGES)


@pytest.mark.slow
def test_views_of_several_sizes_are_read_and_finished_at_the_stages(tmp_path: Path) -> None:
    views = "data.views=[{count: 2}, {count: 2, size: 12, blur_p: 1.0}]"
    assert digest(tmp_path, STAGES, DEVICE, views) == undisturbed(DEVICE, views)


@pytest.mark.parametrize("where", [(STAGES, DEVICE), pytest.param((DEVICE,), marks=pytest.mark.slow)], ids=str)
def test_a_first_stage_that_dies_comes_back_and_reads_on(tmp_path: Path, where: tuple[str, ...]) -> None:
    with disturbed(tmp_path) as trial:
        result = trial.train(*where, "restart=stage", faults(fault("kill", 1, 6), fault("kill", 2, 9)))
        assert (result.returncode, result.stderr) == (0, "")
        assert "stage 1 failed at step 6" in result.stdout
        assert trial.digest == undisturbed(DEVICE)


@pytest.mark.slow
def test_a_run_goes_on_with_the_feed_elsewhere(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        trial.killed(3, 6, STAGES, snapshot=4)
        result = trial.train("data.feed=coordinator")
        assert (result.returncode, result.stderr) == (0, "")
        assert "going on from the snapshot after 4 steps" in result.stdout
        assert trial.digest == undisturbed()


def test_a_feed_worker_of_a_stage_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(STAGES, "data.workers=2", faults(trial.pause(1, 4)))
        wait_for_steps(trial.folder, 3, process)
        victims = feed_workers(trial)
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        trial.go()
        output, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, ""), output
        assert trial.digest == undisturbed()
        assert report(trial.folder)["feed"]["restarts"] == 1


def feed_workers(trial: Trial) -> list[int]:
    """The processes that stage 1 has started to read images."""
    parent, found = trial.pid("stage_1"), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"workers.feed.worker_main" in command and above == parent:
            found.append(int(entry.name))
    return found
