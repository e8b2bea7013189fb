"""What is measured while training: it is what it says, it goes on after a stop, and it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.measures.knn import knn_accuracy
from pipeline.measures.online import OnlineMeasures, online_measures
from pipeline.measures.online_probe import WINDOW, OnlineProbe, RunningAccuracy
from pipeline.measures.quality import alpha_req, collapse_level, lidar, rankme
from pipeline.replicas import SOLO
from pipeline.serial import build_stages, end_to_end_step, serial_step
from pipeline.stage.stage import Stage
from pipeline.stage.state import network_names, restore_stage, snapshot_tensors, stage_counters, stage_tensors
from tests.pipeline.replicas.replica_cases import BATCH
from tests.pipeline.replicas.replica_cases import online as online_case
from tests.pipeline.replicas.replica_team import Replicas, errors
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, same, small_config, state, views

CPU = torch.device("cpu")
ALL = {"linear": True, "knn_bank": 24, "knn_k": 3, "quality_every": 3, "quality_samples": 20}
LABELS = torch.arange(8) % 4
VIT = {"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 24, "num_layers": 2, "num_heads": 2}
METHODS: dict[str, dict[str, Any]] = {
    "noise": {"noise": {"kind": "all"}},
    "byol": {"objective": {"kind": "byol", "predictor": [16]}},
    "custom": {"objective": {"kind": "tests.pipeline.replicas.replica_cases:Whitened", "options": {"drop": 0.5}}},
    "bf16": {"precision": {"dtype": "bf16"}},
    "two sizes": {"data": {"views": [{"count": 2}, {"count": 2, "size": 12}]}},
    "patch": {"objective": {"kind": "simclr", "negatives": "single_patch"}},
    "tokens": {"model": VIT, "head": {"kind": "gsp", "projector": [16]}, "noise": {"kind": "all"}},
    "sequential": {"mode": "sequential", "train": {"max_steps": 4}},
    "end_to_end": {"mode": "end_to_end"},
}


def measured(config: Config, online: dict[str, Any] | None) -> Config:
    evaluation = config.evaluation.model_copy(update={"online": config.evaluation.online.model_copy(update=online)})
    return config.model_copy(update={"evaluation": evaluation}) if online else config


def stages_of(config: Config, dtype: torch.dtype = torch.float32) -> list[Stage]:
    stages = build_stages(config, STEPS_PER_EPOCH, dtype=dtype)
    for stage in stages:
        stage.online = online_measures(config, stage.index, 4, STEPS_PER_EPOCH, stage.compute, SOLO)
    return stages


def run(config: Config, stages: list[Stage], steps: range) -> list[list[dict[str, float]]]:
    """What every stage says after every step."""
    one_step = end_to_end_step if config.mode == "end_to_end" else serial_step
    said = []
    for step in steps:
        reports = one_step(stages, batch_of(config, step), step, [0.25] * len(stages), labels=LABELS)
        row = []
        for stage, _ in zip(stages, reports, strict=False):
            row.append(stage.online.measure(step, LABELS) if stage.online else {})
        said.append(row)
    return said


def one_stage(online: dict[str, Any], **sections: Any) -> tuple[Config, Stage, OnlineMeasures]:
    config = measured(small_config(model={"cuts": []}, **sections), online)
    (stage,) = stages_of(config)
    assert stage.online is not None
    return config, stage, stage.online


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param(sections, marks=[pytest.mark.slow] * (name in ("bf16", "two sizes", "patch")), id=name)
        for name, sections in METHODS.items()
    ],
)
def test_the_trained_bits_are_those_of_a_run_without(sections: dict[str, Any]) -> None:
    plain = small_config(**sections)
    steps = range(16) if plain.mode == "sequential" else range(6)
    config = measured(plain, ALL)
    with_measures, without = stages_of(config), stages_of(plain)
    torch.manual_seed(1)
    said = run(config, with_measures, steps)
    torch.manual_seed(1)  # a loss of the user's own may draw from it: the measures must not
    run(plain, without, steps)
    for one, other in zip(with_measures, without, strict=True):
        assert same(state(one), state(other)), f"stage {one.index}"
        gradients = [(a.grad, b.grad) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in gradients)
    names = set().union(*(row[-1].keys() for row in said))
    assert names == {"linear", "knn", "rankme", "alpha", "alpha_r2", "collapse", "lidar"}


def test_no_gradient_of_the_probe_reaches_the_block() -> None:
    config, stage, online = one_stage({"linear": True})
    run(config, [stage], range(1))
    before = {name: p.grad.clone() for name, p in stage.named_parameters() if p.grad is not None}
    assert before
    stage(views(1), 1, 0.0)
    assert not any(view.requires_grad for view in online._views)
    online.measure(1, LABELS)
    assert all(torch.equal(stage.get_parameter(name).grad, gradient) for name, gradient in before.items())
    assert not any("online" in name or "probe" in name for name in stage.state_dict())


def test_the_features_are_the_trunk_without_its_noise() -> None:
    _, stage, online = one_stage(ALL, noise={"kind": "all"})
    stage(views(0), 0, 5.0)
    expected = [stage.block(stage.inputs.prepared(view)).mean(dim=(2, 3)) for view in views(0)]
    torch.testing.assert_close(torch.stack(online._views), torch.stack(expected))


def test_the_probe_learns_what_can_be_told_apart_and_says_so_before_it_has_learned_it() -> None:
    centres = torch.eye(4)[:, :, None].expand(-1, -1, 4).reshape(4, 16)
    probe, share = OnlineProbe(16, 4, 0.1, 0, 1, CPU, torch.float32), RunningAccuracy()
    source = torch.Generator().manual_seed(0)
    for step in range(60):
        features = 100 + centres[LABELS] + 0.1 * torch.randn(8, 16, generator=source)
        right = probe.step(features, LABELS)
        assert step or right < 0.6
        share.add(right)
    assert right == 1.0
    assert 0.8 < share.value < 1.0
    probe.eval()
    assert torch.equal(probe(100 + centres).argmax(dim=1), torch.arange(4))


def test_a_probe_starts_from_its_seed_and_its_stage_alone() -> None:
    def start(seed: int, stage: int) -> Tensor:
        torch.manual_seed(seed + 10 * stage)
        return OnlineProbe(8, 4, 0.1, 3, stage, CPU, torch.float32).linear.weight

    assert torch.equal(start(0, 1), start(1, 1))
    assert not torch.equal(start(0, 1), start(0, 2))


def test_a_running_share_is_a_mean_first_and_follows_later() -> None:
    share = RunningAccuracy()
    assert [share.add(x) for x in (1.0, 0.0, 0.5)] == [1.0, 0.5, 0.5]
    for _ in range(WINDOW):
        share.add(0.5)
    assert share.add(1.0) == pytest.approx(0.5 + 0.5 / WINDOW)


def test_nearest_neighbours_are_those_of_earlier_batches_of_the_same_epoch() -> None:
    config, stage, online = one_stage({"knn_bank": 16, "knn_k": 3})
    seen: list[Tensor] = []
    shares = []
    for step in range(7):
        stage(views(step), step, 0.0)
        (own,) = online._views
        said = online.measure(step, LABELS)
        if step % STEPS_PER_EPOCH == 0:
            assert "knn" not in said, "nothing to compare with, or an image would meet another view of itself"
            seen = []
        else:
            bank, labels = torch.cat(seen)[-16:], LABELS.repeat(len(seen))[-16:]
            shares.append(knn_accuracy(bank, labels, own, LABELS, (3,), config.evaluation.knn.temperature)[3][0])
            assert said["knn"] == pytest.approx(sum(shares) / len(shares))
        seen.append(own)
    assert len(shares) == 5
    assert len(set(shares)) > 1


def test_quality_is_that_of_the_last_images_as_soon_as_there_are_enough() -> None:
    config, stage, online = one_stage({"quality_every": 2, "quality_samples": 20})
    assert not config.uses_labels
    seen = []
    for step in range(6):
        stage(views(step), step, 0.0)
        seen.append(torch.stack(online._views, dim=1))
        said = online.measure(step, None)
        if step not in (3, 5):
            assert said == {}, "not its turn, or too few images"
            continue
        last = torch.cat(seen)[-20:]
        expected = {
            "rankme": rankme(last[:, 0]),
            "alpha": alpha_req(last[:, 0]).alpha,
            "alpha_r2": alpha_req(last[:, 0]).r2,
            "collapse": collapse_level(last[:, 0]),
            "lidar": lidar(last),
        }
        assert said == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_whose_features_are_not_finite_is_left_out_and_counted(value: float) -> None:
    config, stage, online = one_stage(ALL)
    run(config, [stage], range(2))
    before = {name: tensor.clone() for name, tensor in online.tensors().items()}
    poisoned = torch.full((2, 8, 3, 16, 16), value)
    stage(poisoned, 2, 0.0)
    assert stage.update(2).skipped
    assert online.measure(2, LABELS) == {"skipped": 1}
    after = online.tensors()
    assert after.pop("counters").tolist() == [1, 0]
    del before["counters"]
    assert same(after, before)
    (said,) = run(config, [stage], range(3, 4))[0]
    assert said["skipped"] == 1
    assert {"linear", "knn"} <= said.keys()


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_restored_measure_goes_on_to_the_bit(stop: int) -> None:
    config = measured(small_config(noise={"kind": "all"}), ALL)
    stages = stages_of(config)
    run(config, stages, range(stop))
    saved = [{name: t.clone() for name, t in snapshot_tensors(stage).items()} for stage in stages]
    counters = [stage_counters(stage) for stage in stages]
    said = run(config, stages, range(stop, 9))
    others = stages_of(config)
    for stage, tensors, numbers in zip(others, saved, counters, strict=True):
        assert restore_stage(stage, tensors, numbers) == []
    assert run(config, others, range(stop, 9)) == said
    for one, other in zip(stages, others, strict=True):
        assert same(snapshot_tensors(one), snapshot_tensors(other))


def test_a_snapshot_holds_the_measures_and_the_trained_weights_do_not() -> None:
    _, stage, online = one_stage(ALL)
    run(small_config(model={"cuts": []}), [stage], range(1))
    names = {name for name in snapshot_tensors(stage) if name.startswith("online.")}
    assert {"online.probe.linear.weight", "online.bank.features", "online.recent.features"} <= names
    assert not names & set(stage_tensors(stage))
    assert set(network_names(snapshot_tensors(stage))) == stage.state_dict().keys()
    assert online.probe is not None
    assert online.probe.weights().keys() == {
        "norm.running_mean",
        "norm.running_var",
        "linear.weight",
        "linear.bias",
    }


def test_what_a_snapshot_has_nothing_of_starts_anew() -> None:
    config, stage, _ = one_stage(ALL)
    run(config, [stage], range(3))
    plain = stages_of(small_config(model={"cuts": []}))[0]
    assert restore_stage(plain, snapshot_tensors(stage), stage_counters(stage)) == []
    _, other, online = one_stage({**ALL, "quality_samples": 8})
    assert restore_stage(other, snapshot_tensors(stage), stage_counters(stage)) == ["recent"]
    assert restore_stage(other, snapshot_tensors(plain), stage_counters(stage)) == ["probe", "bank", "recent"]
    (wider,) = stages_of(measured(small_config(model={"cuts": []}), ALL))
    wider.online = online_measures(config, 1, 9, STEPS_PER_EPOCH, wider.compute, SOLO)
    assert restore_stage(wider, snapshot_tensors(stage), stage_counters(stage)) == ["probe"]
    assert online.skipped == 0


def test_in_mode_sequential_the_block_that_learns_is_measured_and_the_frozen_ones_keep_their_probe() -> None:
    config = measured(small_config(mode="sequential", train={"max_steps": 4}), {"linear": True})
    stages = stages_of(config)
    said = run(config, stages, range(8))
    assert [[bool(found) for found in row] for row in said] == [[True]] * 4 + [[False, True]] * 4
    probe = stages[0].online.probe.linear.weight.clone()
    run(config, stages, range(8, 9))
    assert torch.equal(stages[0].online.probe.linear.weight, probe)


@pytest.mark.parametrize("size", [2, 3])
def test_replicas_measure_what_one_process_does(replicas: Replicas, size: int) -> None:
    settings = {**ALL, "knn_bank": 2 * BATCH}
    sections = {"noise": {"kind": "all"}, "model": {"cuts": ["layer1"]}}
    expected = online_case(SOLO, sections, settings)
    assert expected["1/said/linear"].numel()
    first, *others = replicas.run(size, "online", sections=sections, settings=settings)
    worst = errors(first, expected)
    assert max(worst.values()) < 1e-8, worst
    for other in others:
        assert not any("said" in name or "online" in name for name in other), "one measures for all of them"
        assert all(torch.equal(other[name], first[name]) for name in other)


@pytest.mark.parametrize(
    ("online", "quality", "message"),
    [
        ({"knn_bank": 10, "knn_k": 11}, {}, r"evaluation\.online\.knn_k: got 11.* bank of 10 .*at most 10"),
        ({"quality_every": 5, "quality_samples": 1}, {}, r"evaluation\.online\.quality_samples: got 1.*2 or more"),
        ({"quality_every": 5, "quality_samples": 6}, {}, r"evaluation\.quality\.ranks: got \[6, 100\].*6 rows"),
        ({"quality_every": 5}, {"ranks": [64, 100]}, r"evaluation\.quality\.ranks: .*as narrow as 8.*Begin below 8"),
    ],
)
def test_what_could_never_be_measured_is_refused(online: dict[str, Any], quality: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(evaluation={"online": online, "quality": quality})


@pytest.mark.parametrize(
    ("online", "wanted"),
    [({}, False), ({"quality_every": 1}, False), ({"linear": True}, True), ({"knn_bank": 20}, True)],
)
def test_labels_travel_only_where_they_are_used(online: dict[str, Any], wanted: bool) -> None:
    assert small_config(evaluation={"online": online}).uses_labels == wanted
