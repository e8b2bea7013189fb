"""`onward replay` on real runs: the command of an alarm shows where a NaN came from, and bits are equal."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import onward as api
from pipeline.errors import ConfigError, UserError
from tests.runs import onward, train
from tests.workers.replaying.contrast import CONTRASTED

pytestmark = [pytest.mark.processes, pytest.mark.slow]
STEPS = ("train.max_steps=10", "snapshots={every: 4, keep_last: 5}", "digests.every=3")
SAME = "equal to the bit to what the run recorded: input, loss, gradient, weights"


@pytest.mark.parametrize("mode", [("link.kind=queue",), ("runtime=serial",), ("memory.recompute=units",)])
def test_a_step_is_equal_to_what_the_run_recorded(tmp_path: Path, mode: tuple[str, ...]) -> None:
    result = train(tmp_path, *STEPS, *mode)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    for stage in ("1", "3"):
        ended = onward("replay", run, "--stage", stage, "--step", "5")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[0].endswith(", from the snapshot after 4 steps, and 1 step from there")
        assert SAME in ended.stdout
    unknown = api.replay(run, stage=4, step=4, dump=tmp_path / "dump")
    assert (unknown.recorded, unknown.equal, unknown.found.start) == ({}, True, 4), "the loss is all that was recorded"
    written = json.loads((tmp_path / "dump" / "step.json").read_text())
    assert written["recorded_loss"] == written["loss"] == unknown.recorded_loss
    assert api.replay(run, stage=2, step=8, first=0).equal is True


def test_the_command_of_the_alarm_shows_the_image_that_gave_a_nan(
    tmp_path: Path, make_image_folder: Callable[..., Path]
) -> None:
    images = make_image_folder(tmp_path / "images")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(images / "train" / "class1" / "3.png")
    config = tmp_path / "contrasted.yaml"
    config.write_text(CONTRASTED)
    ended = train(tmp_path, f"data.root={images}", config=config)
    assert ended.returncode == 0, ended.stderr
    commands = re.findall(r"(onward replay \S+ --stage 1 --step 0) shows where it began", ended.stdout + ended.stderr)
    assert commands, ended.stdout
    dump = tmp_path / "dump"
    found = onward(*shlex.split(commands[0])[1:], "--dump", dump)
    assert (found.returncode, found.stderr) == (0, "")
    assert "first not finite, forward: block.contrast (Contrast) gave it, in call 1\n" in found.stdout
    assert re.search(r"\n  1  nan +\S+/class1/3\.png, class 1  \(not finite\)\n", found.stdout)
    assert "\n  1 of 8 had a number there that is not finite\n" in found.stdout
    assert sorted(path.name for path in (dump / "images").iterdir())[0] == "1-class1-3.png"
    given = load_file(dump / "activations.safetensors")["block.contrast/1/output"].flatten(1).isfinite().all(1)
    seen = json.loads((dump / "step.json").read_text())["images"]
    assert [image["row"] for image in seen if image["broken"]] == (~given).nonzero().flatten().tolist()


def test_replicas_are_computed_as_one_and_that_is_said(tmp_path: Path) -> None:
    result = train(tmp_path, *STEPS, "stages.1.replicas=2")
    assert result.returncode == 0, result.stderr
    ended = onward("replay", tmp_path / "run", "--stage", "1", "--step", "5")
    assert ended.returncode == 0
    assert "other bits may be right: stage 1 had 2 replicas, whose sums round differently" in ended.stdout


def test_what_is_missing_is_named_and_bits_that_differ_are_a_failure(tmp_path: Path) -> None:
    assert train(tmp_path, *STEPS, "snapshots={every: 2, keep_last: 2}", "runtime=serial").returncode == 0
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"no snapshot of its first 5 steps, the nearest are after 8 and 10 steps"):
        api.replay(run, stage=1, step=5)
    with pytest.raises(UserError, match=r"there is no stage 9\. Give one from 1 to 4"):
        api.replay(run, stage=9, step=5)
    with pytest.raises(UserError, match=r"has no step 10: it came to step 9\. Give --step up to that"):
        api.replay(run, stage=1, step=10)
    with pytest.raises(ConfigError, match=r"optimizer\.lr: decides the numbers"):
        api.replay(run, stage=1, step=8, optimizer__lr=1.0)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[8]["stages"][0]["digests"]["gradient"] = "0" * 32
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = onward("replay", run, "--stage", "1", "--step", "8")
    assert ended.returncode == 1
    assert "NOT the bits that the run recorded: gradient differ" in ended.stdout
