"""`onward verify`: a run is computed again and compared, and what was changed on purpose is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import onward as api
from launch.verifying.recorded import Difference
from pipeline.errors import ConfigError, TrainingError, UserError
from tests.runs import onward, train
from workers.run.files import RunDir
from workers.run.tensor_files import save_tensors

pytestmark = [pytest.mark.processes, pytest.mark.slow]
STEPS = ("train.max_steps=10", "snapshots={every: 4, keep_last: 5}")
EQUAL = "computed again, are equal to the bit: "


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    result = train(folder, *STEPS, "digests.every=2")
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> RunDir:
    """A copy that may be changed."""
    shutil.copytree(whole, tmp_path / "run")
    return RunDir(tmp_path / "run")


def files(run: Path) -> dict[Path, str]:
    return {p: sha256(p.read_bytes()).hexdigest() for p in sorted(run.rglob("*")) if p.is_file()}


def change_lines(run: RunDir, changed: Callable[[dict[str, object]], None]) -> None:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for line in lines:
        changed(line)
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_snapshot(run: RunDir, steps: int, stage: int) -> str:
    """Put another number into a weight, as a damaged memory would have before the snapshot was written."""
    path = run.snapshot(steps) / f"stage_{stage}.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.startswith("block.") and tensors[name].is_floating_point())
    tensors[name].view(-1)[0] += 0.25
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["stages"][str(stage)]["sha256"] = save_tensors(path, tensors, root=run.path)
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    return name


@pytest.mark.parametrize("runtime", [(), ("--runtime", "pipelined")], ids=["serial", "pipelined"])
def test_a_run_is_equal_to_what_is_computed_again_and_stays_as_it_is(whole: Path, runtime: tuple[str, ...]) -> None:
    before = files(whole)
    last = onward("verify", whole, *runtime)
    assert (last.returncode, last.stderr) == (0, "")
    line = f"{EQUAL}the digests of 1 step and every tensor after 10 steps, all stages"
    share = "that is 2 of the 10 steps of the run (20 %); --all computes every step again"
    assert last.stdout.splitlines()[-2:] == [f"steps 8 to 10 of {whole}, {line}", share]
    every = onward("verify", whole, "--all", *runtime)
    line = f"{EQUAL}the digests of 5 steps and every tensor after 4 and 8 and 10 steps, all stages"
    assert every.stdout.splitlines()[-2:] == [f"steps 0 to 10 of {whole}, {line}", "that is all 10 steps of the run"]
    assert files(whole) == before


def test_the_first_step_and_stage_that_differ_are_named(run: RunDir) -> None:
    def changed(line: dict[str, object]) -> None:
        if line["step"] in (5, 7):
            line["stages"][2]["digests"]["gradient"] = "0" * 32  # type: ignore[index]

    change_lines(run, changed)
    result = onward("verify", run.path, "--from", "0", "--to", "10")
    assert result.returncode == 1
    assert f"steps 0 to 8 of {run.path}, computed again, DIFFER\n" in result.stdout
    assert "first at step 5, stage 3: gradient (input and loss are equal)\n" in result.stdout
    assert "versions, processor, devices and modules are those that it was trained with" in result.stdout
    assert onward("verify", run.path, "--from", "4", "--to", "8", "--stage", "2").returncode == 0


def test_a_weight_that_changed_in_a_snapshot_is_found_with_its_size(run: RunDir) -> None:
    name = change_snapshot(run, 8, 3)
    found = api.verify(run.path, first=4)
    assert (found.equal, found.difference, found.states) == (False, None, (8,))
    differing = [state for state in found.tensors if state.differs]
    assert [(s.stage, s.tensors, s.elements) for s in differing] == [(3, [name], 1)]
    assert differing[0].largest == pytest.approx(0.25)
    assert f"after 8 steps, stage 3: {name}: 1 of " in str(found)
    behind = api.verify(run.path, first=8)
    assert behind.difference == Difference(9, 3, "loss"), "what was trained did not go on from it"
    assert api.verify(run.path, first=4, stage=2).equal


def test_another_configuration_shows_where_it_begins_to_matter(run: RunDir) -> None:
    text = run.config.read_text()
    run.config.write_text(text.replace("lambd: 0.0051", "lambd: 0.006"))
    assert run.config.read_text() != text
    found = api.verify(run.path, first=0)
    assert found.difference == Difference(1, 1, "loss")


def test_without_digests_the_state_is_compared(run: RunDir) -> None:
    change_lines(run, lambda line: [stage.pop("digests", None) for stage in line["stages"]])  # type: ignore[union-attr]
    config = run.config.read_text()
    run.config.write_text(config.replace("digests:\n  every: 2", "digests:\n  every: 0"))
    found = api.verify(run.path, first=4)
    assert (found.equal, found.recorded, found.states) == (True, 0, (8,))
    with pytest.raises(UserError, match=r"recorded no digests of steps 4 to 6 .* has kept no state after 6 steps"):
        api.verify(run.path, first=4, last=6)
    change_snapshot(run, 8, 1)
    assert not api.verify(run.path, first=4).equal


def test_closeness_is_of_the_first_step_and_says_how_far_the_states_are(run: RunDir) -> None:
    alike = onward("verify", run.path, "--close", "0")
    assert (alike.returncode, alike.stderr) == (0, "")
    far = ", ".join(f"stage {stage} 0.0e+00" for stage in range(1, 5))
    assert f"loss and norms of step 8 of {run.path}, computed again, are near enough (0): {far}\n" in alike.stdout
    change_snapshot(run, 8, 3)
    other = api.verify(run.path, first=8, close=1e-6)
    assert not other.equal
    assert [stage for stage, gap in other.near[0].gaps.items() if gap] == [3, 4]
    assert "are NOT near enough (1e-06)" in str(other)
    assert "after 10 steps the states differ by 0.0e+00 (stage 1), " in str(other)


def test_replicas_are_computed_again_as_replicas(tmp_path: Path) -> None:
    result = train(tmp_path, *STEPS, "digests.every=2", "stages.1.replicas=2")
    assert result.returncode == 0, result.stderr
    found = api.verify(tmp_path / "run")
    assert found.equal
    alone = api.verify(tmp_path / "run", runtime="serial")
    assert alone.recorded == 1
    assert api.verify(tmp_path / "run", runtime="serial", close=1e-3).equal, "they round in another way"
    assert alone.keys == ("stages.1.replicas is 2 there, null here",)


@pytest.mark.parametrize(("first", "last"), [(3, 6), (6, 9)])
def test_blocks_that_have_their_turns_are_computed_at_the_same_steps(tmp_path: Path, first: int, last: int) -> None:
    sequential = ("mode=sequential", "train.max_steps=3", "snapshots={every: 3, keep_last: 5}", "digests.every=1")
    result = train(tmp_path, *sequential, "runtime=serial")
    assert result.returncode == 0, result.stderr
    found = api.verify(tmp_path / "run", first=first, last=last)
    assert (found.equal, found.recorded, found.states) == (True, 3, (last,))
    assert [state.stage for state in found.tensors] == list(range(1, last // 3 + 1)), "those that had their turn"


def test_what_decides_the_numbers_cannot_be_changed_and_a_failure_is_told(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: decides the numbers"):
        api.verify(run.path, optimizer__lr=1.0)
    with pytest.raises(UserError, match=r"there is no stage 9\. Give one from 1 to 4"):
        api.verify(run.path, stage=9)
    with pytest.raises((UserError, TrainingError), match="steps 8 to 10 cannot be computed again: "):
        api.verify(run.path, overrides={"data.workers": 1, "device": "cuda:7"})
    assert torch.cuda.is_available() or onward("verify", run.path, "device=cuda").returncode == 2
