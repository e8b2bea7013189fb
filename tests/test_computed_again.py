"""`onward verify`, `replay` and `bisect` of runs of every origin: torchrun, resumed, with replicas, without digests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import onward as api
from tests.marks import slow
from tests.recovery import disturbed, fault, faults, python
from tests.runs import LIMIT, TINY, Process, ended_afterwards, onward, train

pytestmark = pytest.mark.processes

FIXTURE = Path(__file__).parent / "fixtures" / "run_of_c63147f"
STEPS = ("train.max_steps=10", "snapshots={every: 4, keep_last: 5}")
EVERY = "digests.every=2"
WITHOUT = "the run recorded no digests of this step (digests.every); its loss, "


def with_torchrun(folder: Path, *overrides: str) -> Path:
    """A run of four stages, each in a process that torchrun has started."""
    with disturbed(folder) as trial:
        (folder / "tiny.yaml").write_text(TINY)
        command = python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "launch.train")
        command += [str(folder / "tiny.yaml"), f"run_dir={trial.run}", *STEPS, *overrides]
        process = Process(command, {**trial.environment, "OMP_NUM_THREADS": "1"}, forked=True)
        with ended_afterwards([process]):
            _, error = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, error
        return trial.run


def trained(folder: Path, *overrides: str) -> Path:
    folder.mkdir()
    result = train(folder, *STEPS, *overrides)
    assert result.returncode == 0, result.stderr
    return folder / "run"


def verified(run: Path, *arguments: str) -> list[str]:
    """The lines that `onward verify` prints of a run that is equal."""
    result = onward("verify", run, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()[-2:]


@pytest.mark.slow
def test_a_run_of_torchrun_is_computed_again_replayed_and_compared(tmp_path: Path) -> None:
    run = with_torchrun(tmp_path / "ranks", EVERY)
    lines = verified(run, "--all")
    assert lines[0].startswith(f"steps 0 to 10 of {run}, computed again, are equal to the bit: the digests of 5 steps ")
    assert lines[1] == "that is all 10 steps of the run"
    replayed = onward("replay", run, "--stage", "3", "--step", "5")
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert "equal to the bit to what the run recorded: input, loss, gradient, weights" in replayed.stdout
    alone = trained(tmp_path / "serial", EVERY, "runtime=serial")
    compared = onward("bisect", run, alone)
    assert (
        compared.stdout == f"{run} and {alone} are equal to the bit until 10 steps, the last that both have recorded\n"
    )
    assert compared.returncode == 0


@pytest.mark.slow
def test_a_run_without_digests_has_its_state_and_its_losses_compared(tmp_path: Path) -> None:
    run = trained(tmp_path / "one", "runtime=serial")
    first, share = verified(run)
    assert " are equal to the bit: every tensor after 10 steps, all stages" in first
    assert share.endswith("--all computes every step again")
    replayed = onward("replay", run, "--stage", "2", "--step", "5")
    assert replayed.returncode == 0
    assert WITHOUT in replayed.stdout
    assert "is equal to the bit, and is all that can be compared" in replayed.stdout
    other = trained(tmp_path / "two", "runtime=serial", "objective.lambd=0.006")
    parted = onward("bisect", run, other)
    assert parted.returncode == 1
    assert f"{run} and {other} part between steps 0 and 3\n" in parted.stdout


@pytest.mark.slow
def test_a_run_that_went_on_is_computed_again_as_it_was(tmp_path: Path) -> None:
    (folder := tmp_path / "resumed").mkdir()
    life = (*STEPS, EVERY, faults(fault("raise", 2, 6)))
    assert train(folder, *life, "runtime=serial").returncode == 1
    assert train(folder, *life).returncode == 0
    assert "equal to the bit: the digests of 5 steps and " in verified(folder / "run", "--all")[0]
    assert api.replay(folder / "run", stage=2, step=5).equal is True
    whole = trained(tmp_path / "whole", EVERY)
    assert api.bisect(folder / "run", whole).equal == 10


@pytest.mark.slow
def test_replicas_are_compared_as_replicas(tmp_path: Path) -> None:
    shared, whole = trained(tmp_path / "two", EVERY, "stages.1.replicas=2"), trained(tmp_path / "one", EVERY)
    found = api.bisect(shared, whole, recompute=True)
    assert found.parted
    assert found.repeats, "what two replicas sum up they round in another way, every time"
    assert "stages.1.replicas is 2 there, null here" in found.why
    assert not any("frozen" in why for why in found.why)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy of the run of an earlier version, whole again."""
    run = tmp_path / "earlier"
    shutil.copytree(FIXTURE, run)
    for stage in (1, 2):
        shutil.copy(run / "final" / f"stage_{stage}.safetensors", run / "snapshots" / "step_6")
    return run


@pytest.mark.parametrize("all_of_it", [False, slow(True)], ids=["last interval", "all"])
def test_a_run_of_an_earlier_version_says_what_it_lacks(earlier: Path, all_of_it: bool) -> None:
    """Another processor rounds in another way, so near is all that can be asked for here; it is named as a cause."""
    found = api.verify(earlier, whole=all_of_it, close=0.01)
    assert found.equal, str(found)
    assert found.circumstances[-1] == "there is no record of where the run was trained (provenance.json)"
    assert str(found).endswith(f"that is {len(found.near)} of the 6 steps of the run")
    replayed = api.replay(earlier, stage=1, step=4)
    assert (replayed.recorded, replayed.edited) == ({}, "")
    assert replayed.recorded_loss == pytest.approx(replayed.found.loss, rel=0.01)
    assert api.bisect(earlier, earlier).equal == 6
