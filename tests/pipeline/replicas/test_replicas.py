"""Several replicas of a stage compute what one process computes on the whole batch, for every objective."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.replicas import SOLO
from tests.marks import slow
from tests.pipeline.replicas.replica_cases import ONE_BLOCK, released, train
from tests.pipeline.replicas.replica_team import Failed, Replicas, errors
from tests.pipeline.small import same

CLOSE = 1e-9
OBJECTIVES: dict[str, dict[str, Any]] = {
    "barlow_twins": {"noise": {"kind": "all"}},
    "simclr": {"objective": {"kind": "simclr"}, "noise": {"kind": "hw"}},
    "simclr, single_patch": {"objective": {"kind": "simclr", "negatives": "single_patch"}},
    "vicreg": {"objective": {"kind": "vicreg"}, "noise": {"kind": "c"}},
    "byol": {"objective": {"kind": "byol", "predictor": [16, 16]}, "noise": {"kind": "all", "placement": "input"}},
    "lejepa": {"objective": {"kind": "lejepa", "directions": 16}, "noise": {"kind": "all"}},
    "supervised": {"objective": {"kind": "supervised"}},
    "custom": {"objective": {"kind": "tests.pipeline.replicas.replica_cases:Whitened"}},
}
LARGE_AND_SMALL: dict[str, Any] = {"views": [{"count": 2}, {"count": 2, "size": 12}]}
SETTINGS: dict[str, dict[str, Any]] = {
    "clipped": {"optimizer": {"kind": "adamw", "lr": 0.01, "clip_norm": 0.1, "warmup_epochs": 0}},
    "absolute noise": {"noise": {"kind": "all", "relative": False}},
    "released noise": {"noise": {"kind": "c_legacy"}},
    "no projector": {"head": {"kind": "lsp", "grid": 2, "projector": "none", "projector_norm": True}},
    # A loss and a head that do not take out again what the last bias adds: its gradient would be rounding alone.
    "transformer": {
        "model": {"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 24, "num_layers": 2, "num_heads": 2},
        "objective": {"kind": "simclr"},
        "head": {"kind": "gsp", "projector": [16]},
        "noise": {"kind": "all"},
    },
    "own network": {
        "model": {"backbone": "tests.pipeline.replicas.replica_cases:steady", "output": "6", "cuts": ["3"]},
        "noise": {"kind": "all"},
    },
}


FEW = ("barlow_twins", "byol", "simclr, single_patch")


@pytest.mark.parametrize("size", [slow(2), 3])
@pytest.mark.parametrize("sections", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_replicas_equal_one_process(replicas: Replicas, sections: dict[str, Any], size: int) -> None:
    expected = train(SOLO, sections)
    found = replicas.run(size, "train", sections=sections)
    assert all(same(found[0], other) for other in found[1:]), "replicas differ from one another"
    worst = errors(found[0], expected)
    assert max(worst.values()) < CLOSE, worst


@pytest.mark.parametrize("data", [slow({"views": [{"count": 4}]}), LARGE_AND_SMALL], ids=["one size", "two sizes"])
@pytest.mark.parametrize("name", ["barlow_twins", "byol", *(slow(name) for name in OBJECTIVES if name not in FEW)])
def test_with_four_views(replicas: Replicas, name: str, data: dict[str, Any]) -> None:
    sections = {"noise": {"kind": "all"}, **OBJECTIVES[name], "data": data}
    worst = errors(replicas.run(2, "train", sections=sections)[1], train(SOLO, sections))
    assert max(worst.values()) < CLOSE, worst


@pytest.mark.parametrize("sections", SETTINGS.values(), ids=list(SETTINGS))
def test_whatever_the_setting(replicas: Replicas, sections: dict[str, Any]) -> None:
    worst = errors(replicas.run(3, "train", sections=sections)[2], train(SOLO, sections))
    assert max(worst.values()) < CLOSE, worst


def test_two_runs_are_equal_to_the_bit(replicas: Replicas) -> None:
    sections = {"noise": {"kind": "all"}, "objective": {"kind": "byol", "predictor": [16, 16]}}
    first, second = (replicas.run(3, "train", sections=sections, dtype="float32") for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))


def test_a_block_that_only_runs_forward_sends_the_same_noise(replicas: Replicas) -> None:
    sections = {
        "mode": "sequential",
        "train": {"max_steps": 1},
        "optimizer": {"warmup_epochs": 0},
        "noise": {"kind": "all"},
    }
    expected = train(SOLO, sections, steps=4)
    worst = errors(replicas.run(2, "train", sections=sections, steps=4)[1], expected)
    assert max(worst.values()) < CLOSE, worst


def test_a_step_is_skipped_by_all_replicas_where_one_image_is_not_finite(replicas: Replicas) -> None:
    sections = {"noise": {"kind": "all"}}
    expected = train(SOLO, sections, poison=1)
    found = replicas.run(3, "train", sections=sections, poison=1)
    for results in (expected, *found):
        assert results["skipped"].tolist() == [False] * 4 + [True] * 4 + [False] * 4
        assert math.isnan(results.pop("losses")[4])
    assert all(same(found[0], other) for other in found[1:])
    worst = errors(found[0], expected)
    assert max(worst.values()) < CLOSE, worst


def test_bf16_gives_on_every_replica_the_bits_of_its_parts(replicas: Replicas) -> None:
    """In float64 the parts are those of one process to 1e-9; in bf16 rounding is amplified, and only bits can tell."""
    found = replicas.run(2, "half")
    for results in found:
        for what in ("sent", "loss", "gradients", "weights"):
            assert results[what].tolist() == [True] * 3, what
    assert same(*found)


def test_an_overflow_in_fp16_on_one_replica_is_one_decision_and_that_of_one_process(replicas: Replicas) -> None:
    sections = {"precision": {"dtype": "fp16"}}
    found = replicas.run(2, "train", sections=sections, dtype="float32", overflow=1)
    assert same(*found)
    expected = train(SOLO, sections, dtype="float32", overflow=1)
    for results in (expected, found[0]):
        assert results["skipped"].view(3, 4).nonzero().tolist() == [[1, 1]]
        scales = [results[f"{stage}/counters"][1].item() for stage in (1, 2, 3, 4)]
        assert scales == [16.0, 8.0, 16.0, 16.0]


def test_a_network_that_draws_is_keyed_by_the_replica(replicas: Replicas) -> None:
    network = {"backbone": "tests.pipeline.replicas.replica_cases:dropping", "output": "6", "cuts": ["3"]}
    sections = {
        "model": network,
        "objective": {"kind": "tests.pipeline.replicas.replica_cases:Whitened", "options": {"drop": 0.5}},
    }
    first, second = (replicas.run(2, "train", sections=sections) for _ in range(2))
    assert same(*first), "the loss draws alike on all replicas"
    assert same(first[0], second[0])
    masks = replicas.run(2, "dropped", sections={"model": network})
    assert not torch.equal(masks[0]["output"], masks[1]["output"]), "the same rows, and other units dropped"


@pytest.mark.parametrize("size", [2, 3])
def test_the_gradient_of_the_released_code_is_divided_by_its_ranks(replicas: Replicas, size: int) -> None:
    plain = {"kind": "sgd", "lr": 1.0, "scale_lr": False, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0}
    sections = {"model": ONE_BLOCK, "optimizer": plain}
    true = train(SOLO, sections, steps=1)
    divided = replicas.run(size, "train", sections={**sections, "objective": {"reference_world_size": size}}, steps=1)
    name = "1/grad/block.conv1.weight"
    torch.testing.assert_close(divided[0][name], true[name] / size, rtol=CLOSE, atol=1e-15)
    assert torch.equal(divided[0]["losses"], true["losses"]) or math.isclose(divided[0]["losses"], true["losses"])
    emulated = released(sections, size)
    torch.testing.assert_close(divided[0][name], emulated, rtol=CLOSE, atol=1e-15)


MEMORY: dict[str, dict[str, Any]] = {
    "barlow_twins": {"noise": {"kind": "all"}, "precision": {"dtype": "bf16"}},
    "byol, noise at the input": OBJECTIVES["byol"],
    "in slices": {"noise": {"kind": "all"}, "head": {"chunk": 2}},
    "draws": {
        "noise": {"kind": "all"},
        "model": {"backbone": "tests.pipeline.replicas.replica_cases:dropping", "output": "6", "cuts": ["3"]},
    },
}


@pytest.mark.parametrize("name", [*list(MEMORY)[:2], *(slow(name) for name in list(MEMORY)[2:])])
def test_what_is_computed_again_has_the_same_bits_and_asks_no_replica_again(replicas: Replicas, name: str) -> None:
    sections = MEMORY[name]
    expected = replicas.run(2, "train", sections=sections, dtype="float32", steps=2)
    asked = replicas.run(2, "gathered", sections=sections)[0]
    for recompute in ("units", "views"):
        memory = {**sections, "memory": {"recompute": recompute}}
        found = replicas.run(2, "train", sections=memory, dtype="float32", steps=2)
        assert same(found[0], expected[0]), recompute
        assert same(found[1], expected[1]), recompute
        assert replicas.run(2, "gathered", sections=memory)[0] == asked, recompute


def test_an_expansion_in_slices_is_that_of_one_process(replicas: Replicas) -> None:
    sections = {"noise": {"kind": "all"}, "head": {"chunk": 3}}
    whole = train(SOLO, {"noise": {"kind": "all"}})
    for found in (train(SOLO, sections), replicas.run(2, "train", sections=sections)[1]):
        worst = errors(found, whole)
        assert max(worst.values()) < CLOSE, worst


def test_sums_over_the_replicas_wait_for_the_last_view_and_run_beside_its_backward_pass(replicas: Replicas) -> None:
    for results in replicas.run(2, "by_view"):
        assert results["early"] == 0
        assert results["late"] > 1
        assert results["same"].all()


def test_the_target_sees_all_rows_and_the_predictor_is_given_them(replicas: Replicas) -> None:
    for results in replicas.run(2, "converted"):
        assert results["target"]
        assert results["predictor"]


def test_a_replica_that_is_gone_is_an_error_of_the_others(replicas: Replicas) -> None:
    with pytest.raises(Failed) as caught:
        replicas.run(3, "leave")
    assert caught.value.args[0] == "ReplicaLost"
    assert caught.value.args[1].startswith("another replica of this stage does not answer (")
