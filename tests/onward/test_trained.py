"""What a run has learned: modules, features and columns of a run of an earlier version, and objects in one process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import onward
from onward.objects import importable_name
from pipeline.config.places import Place
from pipeline.data.augment.evaluation_view import evaluation_view
from pipeline.evaluation.features import embed
from pipeline.objectives import Embeddings
from pipeline.objectives.vicreg import VICReg
from pipeline.serial import build_stages
from tests.onward.tiny import tiny
from tests.sources import REPOSITORY
from workers.evaluating.checkpoints import load_network
from workers.run.files import RunDir

RUN = REPOSITORY / "tests" / "fixtures" / "run_of_c63147f"


@pytest.fixture(scope="module")
def trained() -> onward.Trained:
    return onward.load(RUN)


def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 24, 30, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


def test_the_backbone_computes_what_the_evaluation_does(trained: onward.Trained) -> None:
    stages = build_stages(trained.config.plain(), 1, torch.device("cpu"))
    load_network(RunDir(RUN), stages, None, lambda note: None)
    size = trained.config.data.image_size
    views = torch.from_numpy(np.stack([evaluation_view(image, size) for image in pictures()]))
    places = [Place(block, "trunk") for block in (1, 2)]
    expected = embed([stage.eval() for stage in stages], views, places)
    for place in places:
        assert torch.equal(trained.features(pictures(), place.block), expected[place])
    assert torch.equal(trained.features([np.asarray(one) for one in pictures()]), expected[places[-1]])
    batch = torch.stack([trained.transform(one) for one in pictures()])
    assert torch.equal(trained.features(batch), expected[places[-1]])


def test_the_backbone_is_a_plain_module_of_ones_own(trained: onward.Trained) -> None:
    backbone = trained.backbone()
    assert isinstance(backbone, nn.Sequential)
    assert (len(backbone), backbone.training) == (2, False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert any(parameter.abs().sum() > 0 for parameter in trained.backbone().parameters()), "a copy at every call"
    transform, data = trained.transform, trained.config.data
    assert (transform.size, transform.mean, transform.std) == (data.image_size, data.mean, data.std)
    assert transform(Image.new("RGBA", (9, 7))).shape == (3, data.image_size, data.image_size)


def test_columns_have_every_number_of_every_step(trained: onward.Trained) -> None:
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    columns = trained.columns
    assert columns["step"] == list(range(len(lines)))
    assert columns["stage_2/loss"] == [line["stages"][1]["loss"] for line in lines]
    assert math.isnan(columns["eta_seconds"][0]), "it was null"
    assert list(trained.metrics["stage_1/loss"]) == columns["stage_1/loss"]


@pytest.mark.parametrize(
    ("ask", "refusal"),
    [
        (lambda trained: trained.backbone(3), r"^block: the network of '.*' has no block 3\. Give 1 to 2"),
        (lambda trained: trained.features([]), r"^images: there are none"),
        (lambda trained: trained.features([np.zeros((2, 2))]), r"^images: got float64 of shape \[2, 2\] for one image"),
        (lambda trained: onward.load(f"{RUN}@5").backbone(), r"^evaluation\.checkpoint: .*no snapshot after 5 steps"),
        (lambda trained: onward.load(RUN / "logs"), r"is not a run directory"),
        (lambda trained: onward.load(RUN, network=nn.Linear(1, 1)), r"^network: .* not trained with a Python object"),
        (lambda trained: trained.evaluate(mpl=True), r"^evaluation\.mpl: unknown key .*Did you mean 'mlp'"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(trained: onward.Trained, ask: Any, refusal: str, request: Any) -> None:
    with pytest.raises(onward.UserError, match=refusal):
        ask(trained)


class Agreement(onward.Objective):
    """A loss of a program's own."""

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        first, second = embeddings.views[:2]
        return (first - second).pow(2).mean(), {}


class Net(nn.Module):
    """A network of a program's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(images))
        return output


class Pictures:
    """A data set of a program's own."""

    def __init__(self, count: int) -> None:
        self._pixels = np.random.default_rng(count).integers(0, 256, (count, 20, 18), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), index % 3


class Steps(onward.Tracker):
    """A tracker of a program's own."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, step: int, numbers: Any) -> None:
        self.steps.append(step)


def test_python_objects_train_in_this_process_and_leave_it_as_it_was(tmp_path: Path) -> None:
    network, tracker = Net(), Steps()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    strict = torch.are_deterministic_algorithms_enabled()
    run = onward.train(
        tiny(tmp_path / "run"),
        network=network, loss=Agreement(), data=(Pictures(160), Pictures(40)), trackers=[tracker],
        overrides={"model.output": "second", "model.cuts": ["first"]},
        runtime="serial", snapshots__every=3, progress=False,
    )  # fmt: skip
    assert (run.state, tracker.steps) == ("done", list(range(6)))
    assert torch.are_deterministic_algorithms_enabled() == strict, "the program's own settings"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), "it is copied"
    assert run.config.model.backbone == "python_object:Net"
    features = onward.load(run).features(pictures())
    assert features.shape == (3, 8)
    with pytest.raises(
        onward.ConfigError, match=r"^model\.backbone: 'python_object:Net' is a Python object of .*network="
    ):
        onward.load(run.path).backbone()
    again = onward.load(run.path, network=Net())
    assert torch.equal(again.features(pictures()), features), "the weights are the run's"
    assert len(onward.load(run).dataset("test")) == 40


def test_a_class_that_has_a_name_is_named_and_other_objects_stay_in_one_process(tmp_path: Path) -> None:
    assert importable_name(VICReg) == "pipeline.objectives.vicreg:VICReg"
    assert importable_name(VICReg.__init__) == "pipeline.objectives.vicreg:VICReg.__init__"
    assert importable_name(lambda: None) is importable_name(Net()) is importable_name(print) is None
    with pytest.raises(
        onward.ConfigError, match=r"^runtime: is pipelined, and loss= .*runtime='serial'.*my_module:NAME"
    ):
        onward.train(tiny(tmp_path / "run"), loss=Agreement())
    for given, refusal in (
        ({"network": 3}, r"^model\.backbone: network= is of type int\. Give a torch\.nn\.Module"),
        ({"data": 3}, r"^data\.name: .*no len\(\) and \[index\]"),
        ({"data": [3] * 100}, r"train\[0\] is int64 of shape \[\], and no image|is a int, and no image"),
        ({"trackers": Steps()}, r"^trackers: got an object of type Steps\. Give a list"),
        ({"loss": Agreement(), "data__workers": 1}, r"^data\.workers: are 1, and other processes lack"),
    ):
        with pytest.raises(onward.UserError, match=refusal):
            onward.train(tiny(tmp_path / "run"), runtime="serial", progress=False, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
