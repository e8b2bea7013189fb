"""What `onward replay` says of a step, and whether it has the bits that a run has recorded; all in this process."""

from __future__ import annotations

import json
from math import nextafter
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.commands.replay import Replay, replay_run
from launch.prepare.run_dir import write_config
from pipeline.errors import UserError
from pipeline.validation.loading import parse_config
from tests.runs import TINY
from workers.run.files import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has written nothing but its configuration."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    write_config(run, parse_config({"threads": 1, **yaml.safe_load(TINY)}))
    return run


def recorded(run: RunDir, replay: Replay, **changed: str) -> None:
    """Let the run have recorded the digests of a replayed step, but for what is changed."""
    digests: dict[str, Any] = {**replay.found.digests, **changed}
    stage = {"stage": replay.found.stage, "digests": digests}
    run.metrics.write_text(json.dumps({"step": replay.found.step, "time": 1.0, "stages": [stage]}) + "\n")


def test_it_says_what_happened_and_whether_the_bits_are_the_runs(run: RunDir, tmp_path: Path) -> None:
    first = replay_run(run.path, 2, 0)
    assert first.equal is None
    assert str(first).endswith("recorded no digests of this step (digests.every) and no loss, so nothing was compared")
    recorded(run, first)
    same = replay_run(run.path, 2, 0, dump=tmp_path / "dump")
    lines = str(same).splitlines()
    assert lines[0] == f"step 0 of stage 2 of {run.path}, from the beginning of the run"
    assert lines[1].startswith(f"loss {same.found.loss:.6g} (on_diagonal ")
    assert lines[-1] == "equal to the bit to what the run recorded: input, loss, gradient, weights"
    step = json.loads((tmp_path / "dump" / "step.json").read_text())
    assert (step["equal"], step["loss"], len(step["images"])) == (True, same.found.loss, 64)
    written = {path.name for path in (tmp_path / "dump" / "images").iterdir()}
    assert written == {each["file"] for each in step["images"][:32]}
    assert {each["file"] for each in step["images"][32:]} == {None}
    assert "pictures of the first 32, not of the other 32 (--images 64 writes all)" in str(same)
    recorded(run, first, gradient="0" * 32)
    other = replay_run(run.path, 2, 0)
    assert (other.equal, other.differing) == (False, ["gradient"])
    assert "NOT the bits that the run recorded: gradient differ" in str(other)


def test_without_digests_the_loss_is_compared(run: RunDir, tmp_path: Path) -> None:
    first = replay_run(run.path, 1, 0)
    assert first.found.loss is not None
    for loss, equal in ((first.found.loss, True), (nextafter(first.found.loss, 9.0), False)):
        line = {"step": 0, "time": 1.0, "stages": [{"stage": 1, "loss": loss}]}
        run.metrics.write_text(json.dumps(line) + "\n")
        found = replay_run(run.path, 1, 0, dump=tmp_path / "dump", images=2 if equal else 64)
        assert found.equal is equal
        if equal:
            assert str(found).endswith(f"its loss, {loss}, is equal to the bit, and is all that can be compared")
            assert "with pictures of the first 2, not of the other 62 (--images 64" in str(found)
        else:
            assert f"\nNOT the loss that the run recorded: {loss} there, {first.found.loss} here; " in str(found)
            assert f"pictures of all 64 are in {tmp_path / 'dump'}" in str(found)
    with pytest.raises(UserError, match=r"Give --dump FOLDER with it"):
        replay_run(run.path, 1, 0, images=3)


def test_a_folder_that_cannot_be_written_is_said(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"is not a folder\. Give --dump another one"):
        replay_run(run.path, 1, 0, dump=tmp_path / "file")
    for place in (run.path, run.final, run.final / "more", run.path / "logs" / ".." / "snapshots"):
        with pytest.raises(UserError, match=r"has the files of the run itself, .* Give --dump another folder"):
            replay_run(run.path, 1, 0, dump=place)
    with pytest.raises(UserError, match="cannot be written"):
        replay_run(run.path, 1, 0, dump=Path("/proc/none"))
