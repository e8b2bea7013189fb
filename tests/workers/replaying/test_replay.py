"""A step that is computed again is the run's own, to the bit, and what is seen of it is true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.serial import build_stages, step_function
from pipeline.stage.stage import Stage
from pipeline.validation.loading import parse_config
from tests.marks import slow
from tests.runs import TINY
from tests.workers.replaying.contrast import CONTRASTED
from workers.feed import Feed
from workers.replaying.record import ReplayedStep, StepTensors
from workers.replaying.replay import Wanted, replay_step
from workers.run.compute import settings_kept
from workers.run.files import RunDir
from workers.topology.rendezvous import NoisePolicy

CPU = torch.device("cpu")


def configured(text: str = TINY, **sections: Any) -> Config:
    return parse_config({"runtime": "serial", "threads": 1, **yaml.safe_load(text), **sections})


def replayed(config: Config, stage: int, step: int, keep: bool = True) -> tuple[ReplayedStep, StepTensors]:
    with settings_kept():
        return replay_step(config, RunDir(Path("none")), Wanted(stage=stage, step=step, start=0, keep=keep), CPU)


def trained(config: Config, step: int) -> tuple[list[Any], list[Stage]]:
    """The reports of `step` of all stages, and the stages after it, as a run in one process computes them."""
    with settings_kept(), Feed(config) as feed:
        torch.set_num_threads(config.threads)
        stages = build_stages(config, feed.steps_per_epoch)
        noise = NoisePolicy(config, feed.steps_per_epoch)
        one_step = step_function(config, stages, CPU)
        for batch in feed:
            reports = list(one_step(stages, batch.views, batch.step, noise.levels(batch.step)))
            if batch.step == step:
                return reports, stages
    raise AssertionError(step)


@pytest.mark.long
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"memory": {"recompute": "views"}},
        {"mode": "end_to_end"},
        {"objective": {"kind": "byol"}, "optimizer": {"warmup_epochs": 1, "clip_norm": 0.1}},
    ],
    ids=["plain", "recomputed", "end to end", "target and clipped"],
)
def test_it_is_the_step_of_the_run_to_the_bit(sections: dict[str, Any]) -> None:
    config = configured(metrics={"norms_every": 1}, digests={"every": 1}, **sections)
    reports, stages = trained(config, 1)
    found, tensors = replayed(config, 2, 1)
    report, loss = reports[1], reports[-1] if config.mode == "end_to_end" else reports[1]
    same = ("input", "loss", "gradient", "weights") if report.loss is not None else ("input", "gradient", "weights")
    assert {k: found.digests.get(k) for k in same} == {k: report.digests[k] for k in same}
    assert (found.loss, found.terms, found.skipped, found.notes) == (loss.loss, loss.terms, False, ())
    assert found.gradient_norm == pytest.approx(report.gradient_norm, rel=1e-5)
    assert (found.forward, found.backward, found.weights, found.last_calls) == (None, None, None, ())
    if config.stage(2).optimizer.clip_norm is None:
        for name, parameter in stages[1].named_parameters():
            assert parameter.grad is None or torch.equal(tensors.gradients[name], parameter.grad)


def test_norms_and_the_order_of_images_are_those_of_the_tensors() -> None:
    found, tensors = replayed(configured(), 2, 0)
    modules = {module.name: module for module in found.modules}
    assert list(modules)[:2] == ["block", "block.layer2.0"]
    assert (modules["block"].leaf, modules["block"].calls, modules["block.layer2.0.conv1"].leaf) == (False, 2, True)

    def norm(parts: list[Tensor]) -> float:
        return float(sum(part.double().square().sum() for part in parts).sqrt())  # type: ignore[union-attr]

    outputs = [tensors.activations[f"block.layer2.0/{call}/output"] for call in (1, 2)]
    assert modules["block.layer2.0"].output == pytest.approx(norm(outputs))
    back = [tensors.gradients[f"output/block.layer2.0/{call}"] for call in (1, 2)]
    assert modules["block.layer2.0"].gradient == pytest.approx(norm(back))
    assert modules["head.projector.0"].parameters == pytest.approx(norm([tensors.gradients["head.projector.0.weight"]]))
    embedding = torch.cat([tensors.gradients[f"embedding/view_{number}"] for number in (1, 2)], 1).double().norm(dim=1)
    assert [image.row for image in found.images] == embedding.argsort(descending=True).tolist()
    assert [image.index for image in found.images] == tensors.embeddings["samples"][
        embedding.argsort(descending=True)
    ].tolist()
    assert found.images[0].measure == pytest.approx(float(embedding.max()))
    assert [tuple(view.shape) for view in tensors.views] == [(64, 16, 16, 3)] * 2


def test_without_a_dump_nothing_is_kept_and_the_same_is_found() -> None:
    found, tensors = replayed(configured(), 1, 0, keep=False)
    assert (tensors.activations, tensors.gradients, tensors.views) == ({}, {}, [])
    assert found == replayed(configured(), 1, 0)[0]


def test_the_first_module_that_overflows_is_named_also_where_the_run_gave_up() -> None:
    hot = {2: {"optimizer": {"lr": 1e30, "warmup_epochs": 0}}}
    config = configured(stages=hot, train={"epochs": 4, "max_steps": 6, "max_skipped": 1})
    found, _ = replayed(config, 2, 1)
    assert (found.skipped, str(found.loss), str(found.gradient_norm)) == (True, "nan", "nan")
    last = found.last_calls[-1]
    assert found.forward == f"{last.name} ({last.kind}) gave it, in call {last.call}"
    assert [call.not_finite > 0 for call in found.last_calls] == [False] * (len(found.last_calls) - 1) + [True]
    behind, _ = replayed(config, 3, 2)
    assert behind.forward is not None
    assert "--stage 2 shows where stage 2 gave it" in behind.forward


def test_weights_that_are_not_finite_before_the_step_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(run: RunDir, steps: int, stages: list[Stage]) -> None:
        stages[0].get_parameter("head.projector.0.weight").data[0, 0] = float("inf")

    monkeypatch.setattr("workers.replaying.replay.restore", spoilt)
    found, _ = replayed(configured(), 1, 0)
    assert found.weights == "head.projector.0.weight"
    assert found.forward is not None
    assert found.forward.startswith("head.projector.0 (Linear) gave it, in call 1: its weight is not finite")


def test_a_gradient_that_is_not_finite_is_found_where_it_comes_back() -> None:
    lost = {"kind": "tests.workers.replaying.lost:RootOfNothing"}
    found, tensors = replayed(configured(objective=lost), 1, 0)
    assert (found.forward, found.loss) == (None, 0.0)
    assert found.backward == "the loss gave it: its gradient at the output of head.projector.3 (Linear)"
    assert not tensors.gradients["embedding/view_1"].isfinite().all()


def test_the_image_that_gave_it_comes_first(make_image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "images")
    blank = folder / "train" / "class1" / "blank.png"
    (folder / "train" / "class1" / "2.png").rename(blank)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(blank)
    document = yaml.safe_load(CONTRASTED)
    document["data"]["root"] = str(folder)
    found, tensors = replayed(configured(yaml.safe_dump(document)), 1, 0)
    assert found.forward == "block.contrast (Contrast) gave it, in call 1"
    first = found.images[0]
    assert (Path(first.name), first.label, first.broken) == (blank, 1, True)
    assert [image.broken for image in found.images] == [True] + [False] * 7
    assert first.file == "1-class1-blank.png"
    assert "block.contrast/1/input" in tensors.activations


def test_a_step_or_a_stage_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match=r"there is no step 6\. Give --step from 0 to 5"):
        replayed(configured(), 1, 6)
    turns = configured(mode="sequential", train={"epochs": 4, "max_steps": 2})
    with pytest.raises(UserError, match=r"stage 2 does not run at step 1, at which stage 1 learns alone"):
        replayed(turns, 2, 1)
    found, _ = replayed(turns, 1, 2)
    assert (found.learns, found.loss, found.gradient_norm, found.backward) == (False, None, None, None)
    assert found.measure == "norm of the stage's output for all views of the image"


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        ({"runtime": "pipelined", "replicas": 2}, "stage 1 had 2 replicas, whose sums round differently"),
        slow(
            {"precision": {"compile": True}},
            "the step itself is computed without the compiler, so that its modules can be seen",
        ),
    ],
)
def test_what_may_give_other_bits_is_noted(sections: dict[str, Any], note: str) -> None:
    found, _ = replayed(configured(**sections), 1, 0)
    assert found.notes == (note,)
    assert found.loss is not None
