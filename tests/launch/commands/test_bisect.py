"""`onward bisect` of real runs: with digests, with snapshots alone, and computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

import onward as api
from launch.verifying.bisection import RecordedAt
from tests.runs import onward, train

pytestmark = [pytest.mark.processes, pytest.mark.slow]
STEPS = ("train.max_steps=10", "snapshots={every: 4, keep_last: 5}")


def trained(folder: Path, *overrides: str) -> Path:
    folder.mkdir()
    result = train(folder, *STEPS, *overrides)
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "first", "digests.every=2")


def test_a_run_of_the_other_runtime_is_equal_to_its_end(run: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "serial", "digests.every=2", "runtime=serial")
    result = onward("bisect", run, other)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{run} and {other} are equal to the bit until 10 steps, the last that both have recorded\n"


def test_snapshots_alone_show_between_which_steps_and_computing_again_which(run: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other", "objective.lambd=0.006")
    found = api.bisect(run, other)
    assert (found.equal, found.differs, found.difference) == (0, RecordedAt(4, True), None)
    assert all(state.differs for state in found.tensors)
    assert "objective.lambd is 0.0051 there, 0.006 here" in found.why
    result = onward("bisect", run, other, "--recompute")
    assert result.returncode == 1
    assert f"{run} and {other} part at step 0, stage 1: loss (input is equal)\n" in result.stdout


def test_what_only_happened_once_is_not_found_again(run: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "flipped", "digests.every=2", "faults=[{kind: flip_weight, stage: 2, step: 5}]")
    found = api.bisect(run, other, recompute=True)
    assert (found.equal, found.repeats, found.computed) == (4, False, (4, 6))
    assert found.difference is not None
    assert (found.difference.step, found.difference.stage) == (5, 2)
    assert any(why.startswith("faults is") for why in found.why)
