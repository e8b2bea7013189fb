"""Stages that are given more than two views, views of several sizes, and views that grow."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.data.augment.resolution import view_sizes
from pipeline.data.packing import pack, unpack
from pipeline.objectives import Embeddings, Objective
from pipeline.serial import build_stages, serial_step
from pipeline.shapes import block_output, boundary_shapes
from pipeline.stage.stage import Stage
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, image_views, same, small_config, state, train

TWO_SIZES = {"views": [{"count": 2}, {"count": 2, "size": 8}]}
GROWING = {"progressive": {"start_size": 8, "end_epoch": 3}}
NOISE = {"kind": "all"}


class Watching(Objective):
    """A user's own loss, which says what it was given."""

    seen: list[Embeddings]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen = []

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(embeddings)
        return sum((z * z).mean() for z in embeddings.views), {}


def first_stage(**sections: Any) -> Stage:
    return build_stages(small_config(**sections), STEPS_PER_EPOCH)[0]


def by_hand(stage: Stage, images: list[Tensor]) -> list[Tensor]:
    """What a copy of the block makes of every view, one after the other."""
    block = deepcopy(stage.block)
    return [block(stage.inputs.prepared(view)) for view in images]


@pytest.mark.parametrize("data", [{"views": [{"count": 4}]}, TWO_SIZES], ids=["one size", "two sizes"])
def test_every_view_goes_through_the_block_in_turn(data: dict[str, Any]) -> None:
    config = small_config(data=data)
    stages = build_stages(config, STEPS_PER_EPOCH)
    images, expected = image_views(config, 0), by_hand(stages[0], image_views(config, 0))
    assert len({tuple(view.shape) for view in images}) == (1 if "size" not in str(data) else 2)
    first = deepcopy(stages[0].block)
    sent = stages[0](pack(images, packed=data is TWO_SIZES), 0, 0.0)
    assert torch.equal(sent, pack([view.detach() for view in expected], packed=data is TWO_SIZES))
    assert tuple(sent.shape) == boundary_shapes(config)[1]
    for view in images:  # the statistics of view 1 come first
        first(stages[0].inputs.prepared(view))
    assert torch.equal(first.bn1.running_mean, stages[0].block.bn1.running_mean)
    backwards = deepcopy(build_stages(config, STEPS_PER_EPOCH)[0].block)
    for view in reversed(images):
        backwards(stages[0].inputs.prepared(view))
    assert not torch.equal(backwards.bn1.running_mean, stages[0].block.bn1.running_mean)
    seen = [tuple(output.shape) for output in stages[0].outputs]
    stages[1](sent, 0, 0.0)
    shapes = [block_output(config, 2, size) for size in view_sizes(config.data, 0)]
    assert [tuple(output.shape[1:]) for output in stages[1].outputs] == shapes
    assert seen == [(8, *block_output(config, 1, size)) for size in view_sizes(config.data, 0)]


def test_packed_or_as_a_list_the_views_are_the_same() -> None:
    config = small_config(data=TWO_SIZES, noise=NOISE)
    one, other = (build_stages(config, STEPS_PER_EPOCH) for _ in range(2))
    for step in range(2):
        for stages, batch in ((one, batch_of(config, step)), (other, image_views(config, step))):
            list(serial_step(stages, batch, step, [0.25] * 4))
    assert all(same(state(a), state(b)) for a, b in zip(one, other, strict=True))


def test_each_view_has_noise_of_its_own_number() -> None:
    stage = first_stage(data=TWO_SIZES, noise=NOISE)
    seen: list[tuple[tuple[int, ...], int]] = []

    def draw(x: Tensor, step: int, index: int, view: int) -> Tensor:
        seen.append((tuple(x.shape), view))
        return torch.zeros_like(x)

    stage.noise.draw = draw
    stage(batch_of(small_config(data=TWO_SIZES), 0), 0, 0.5)
    outputs = [tuple(output.shape) for output in stage.outputs]
    assert seen == list(zip(outputs, (1, 2, 3, 4), strict=True))
    assert outputs[0] != outputs[2]


def test_views_of_other_sizes_than_those_of_the_step_are_an_error() -> None:
    config = small_config(data={**TWO_SIZES, **GROWING})
    stage = build_stages(config, STEPS_PER_EPOCH)[0]
    with pytest.raises(ValueError, match="does not hold views"):
        stage(batch_of(config, 3 * STEPS_PER_EPOCH), 0, 0.0)


def test_the_target_sees_the_large_views_only() -> None:
    byol = {"kind": "byol", "predictor": [16, 16]}
    stage = first_stage(data=TWO_SIZES, objective=byol)
    config = small_config(data=TWO_SIZES, objective=byol)
    before = {k: v.item() for k, v in state(stage).items() if k.endswith("num_batches_tracked")}
    stage(batch_of(config, 0), 0, 0.0)
    stage.update(0)
    counts = {k: v.item() - before[k] for k, v in state(stage).items() if k in before}
    assert {count for name, count in counts.items() if name.startswith("target.")} == {2}
    assert {count for name, count in counts.items() if name.startswith("block.")} == {4}
    assert {count for name, count in counts.items() if name.startswith("objective.")} == {4}


def test_a_loss_of_ones_own_is_given_all_views_and_the_patch_apart() -> None:
    own = {"kind": "tests.pipeline.stage.test_view_stages:Watching"}
    patch = {"kind": "simclr", "negatives": "single_patch"}
    cases: list[tuple[dict[str, Any], int, bool]] = [
        ({"data": TWO_SIZES}, 4, False),
        ({}, 2, False),
        ({"stages": {"2": {"objective": patch}}}, 2, True),
    ]
    for sections, count, has_patch in cases:
        config = small_config(objective=own, **sections)
        stage = build_stages(config, STEPS_PER_EPOCH)[0]
        stage(batch_of(config, 0), 0, 0.0)
        stage.update(0)
        (given,) = stage.objective.seen
        assert len(given.views) == count
        assert (given.patch is not None) == has_patch
        if given.patch is not None:
            assert not any(torch.equal(given.patch, view) for view in given.views)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TWO_SIZES, marks=pytest.mark.slow, id="sizes"),
        pytest.param(GROWING, marks=pytest.mark.slow, id="growing"),
        pytest.param({**TWO_SIZES, **GROWING}, id="both"),
    ],
)
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"kind": "byol", "predictor": [16, 16]}, "mode": "end_to_end"},
        {"precision": {"channels_last": True}, "head": {"kind": "lsp", "grid": 1, "projector": [16, 16]}},
        {"precision": {"dtype": "bf16"}, "objective": {"kind": "vicreg"}},
    ],
    ids=["plain", "end to end", "channels last", "bf16"],
)
def test_every_way_to_train_takes_them_and_is_deterministic(data: dict[str, Any], sections: dict[str, Any]) -> None:
    config = small_config(data=data, noise=NOISE, **sections)
    epochs = (0, 1, 3) if "progressive" in data else (0, 1)  # views of 8, 12 and 16 pixels
    steps = [epoch * STEPS_PER_EPOCH for epoch in epochs]
    runs = [build_stages(config, STEPS_PER_EPOCH) for _ in range(2)]
    reports = [train(config, steps, stages, 0.25) for stages in runs]
    assert all(report.skipped is False for step in reports[0] for report in step)
    assert reports[0] == reports[1]
    assert all(same(state(a), state(b)) for a, b in zip(*runs, strict=True))


def test_a_frozen_block_relays_several_sizes() -> None:
    config = small_config(data=TWO_SIZES, mode="sequential")
    stages = build_stages(config, STEPS_PER_EPOCH)
    learner = config.train.epochs * STEPS_PER_EPOCH
    frozen = state(stages[0])
    reports = list(serial_step(stages, batch_of(config, learner), learner, [0.0] * 4))
    assert [report.loss is None for report in reports] == [True, False]
    assert same(state(stages[0]), frozen)


@pytest.mark.parametrize("codec", ["bf16", "fp16"])
def test_a_codec_rounds_packed_views(codec: str) -> None:
    config = small_config(data=TWO_SIZES)
    plain, coded = (build_stages(config, STEPS_PER_EPOCH) for _ in range(2))
    for stages, name in ((plain, "none"), (coded, codec)):
        list(serial_step(stages, batch_of(config, 0), 0, [0.0] * 4, codec=name))
    assert same(state(plain[0]), state(coded[0]))
    assert not same(state(plain[1]), state(coded[1]))


def test_the_views_of_a_growing_run_have_the_size_of_their_epoch() -> None:
    config = small_config(data={**GROWING, "image_size": 16})
    stage = build_stages(config, STEPS_PER_EPOCH)[0]
    sides = [stage(batch_of(config, step), step, 0.0).shape[-1] for step in range(0, 16, STEPS_PER_EPOCH)]
    assert sides == [block_output(config, 1, size)[1] for size in (8, 12, 12, 16)]
    largest = boundary_shapes(config)[1]
    assert largest[-1] == sides[-1]


def test_shapes_of_packed_links() -> None:
    config = small_config(data=TWO_SIZES)
    shapes = boundary_shapes(config)
    assert shapes[0] == (1, 8, 2 * 3 * 16 * 16 + 2 * 3 * 8 * 8)
    stages = build_stages(config, STEPS_PER_EPOCH)
    x: Tensor = batch_of(config, 0)
    for stage, shape in zip(stages, shapes[1:], strict=True):
        x = stage(x, 0, 0.0)
        assert tuple(x.shape) == shape
    last = [block_output(config, 4, size) for size in view_sizes(config.data, 0)]
    assert [view.shape[1:] for view in unpack(x, last)] == [torch.Size(shape) for shape in last]
