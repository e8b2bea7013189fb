"""What each precision promises: fp32 the same bits, bf16, compiled and channels-last close ones, fp16 a scaled loss."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import Config
from pipeline.errors import ConfigError, TrainingError
from pipeline.precision import LossScaler
from pipeline.serial import build_stages, end_to_end_step, shared_scaler_step
from pipeline.stage import Stage
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, train, views


def losses(config: Config, steps: int = 3) -> torch.Tensor:
    return torch.tensor([[report.loss for report in step] for step in train(config, steps)])


def test_fp32_is_reproducible_to_the_bit() -> None:
    assert torch.equal(losses(small_config()), losses(small_config()))


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [({"dtype": "bf16"}, 0.05), ({"channels_last": True}, 1e-3), ({"dtype": "bf16", "channels_last": True}, 0.05)],
    ids=["bf16", "channels_last", "both"],
)
def test_a_cheaper_format_is_close(precision: dict[str, object], tolerance: float) -> None:
    exact, close = losses(small_config()), losses(small_config(precision=precision))
    assert not torch.equal(exact, close) or precision == {"channels_last": True}
    torch.testing.assert_close(close, exact, rtol=tolerance, atol=0)


def test_bf16_travels_as_bf16_and_leaves_the_weights_alone() -> None:
    stages = build_stages(small_config(precision={"dtype": "bf16"}), STEPS_PER_EPOCH)
    activations = stages[0](views(0), 0, 0.0)
    assert activations.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in stages[0].parameters()} == {torch.float32}


def test_stages_of_different_precision_work_together() -> None:
    """Each takes what the one before it sends, and then computes to the bit what it would among its like."""
    half = {"precision": {"dtype": "bf16"}}
    mixed = build_stages(small_config(stages={"1": half, "3": half}), STEPS_PER_EPOCH)
    alike = {
        torch.bfloat16: build_stages(small_config(**half), STEPS_PER_EPOCH),
        torch.float32: build_stages(small_config(), STEPS_PER_EPOCH),
    }
    for step in range(3):
        sent: torch.Tensor = views(step)
        for number, dtype in enumerate((torch.bfloat16, torch.float32) * 2):
            taken = sent if number == 0 else sent.to(dtype)
            sent = mixed[number](sent, step, 0.0)
            assert sent.dtype == dtype
            assert torch.equal(sent, alike[dtype][number](taken, step, 0.0))
            assert mixed[number].update(step).loss == alike[dtype][number].update(step).loss


@pytest.mark.slow
def test_compiled_stages_are_close_and_keep_their_names() -> None:
    config = small_config(model={"cuts": []}, precision={"compile": True})
    plain = small_config(model={"cuts": []})
    torch.testing.assert_close(losses(config, 2), losses(plain, 2), rtol=1e-3, atol=0)
    assert Stage(config, 1, 4).state_dict().keys() == Stage(plain, 1, 4).state_dict().keys()


def half_stages(config: Config) -> list[Stage]:
    """fp16 stages on the CPU, which the configuration refuses for its slowness; the arithmetic is the same."""
    stages = build_stages(config, STEPS_PER_EPOCH)
    for stage in stages:  # a scale at which nothing overflows by itself
        stage.scaler = LossScaler(torch.device("cpu"), [stage.optimizer], initial_scale=16.0)
    return stages


def test_fp16_scales_the_loss_and_learns() -> None:
    config = small_config(precision={"dtype": "fp16"})
    stages = half_stages(config)
    reports = train(config, 4, stages)
    torch.testing.assert_close(
        torch.tensor([[r.loss for r in s] for s in reports]), losses(small_config(), 4), rtol=0.05, atol=0
    )
    assert all(stage.scaler is not None and stage.scaler.scaler.get_scale() > 1 for stage in stages)


def overflow(stage: Stage) -> None:
    """Make the next gradients of one stage overflow."""
    parameter = next(stage.head.parameters())
    parameter.register_hook(lambda gradient: gradient * float("inf"))


def test_an_overflow_skips_the_step_of_that_block_alone() -> None:
    config = small_config(precision={"dtype": "fp16"})
    stages = half_stages(config)
    overflow(stages[1])
    scales = [stage.scaler.scaler.get_scale() for stage in stages]
    before = [state(stage) for stage in stages]
    (_, second) = train(config, 2, stages)
    assert [report.skipped for report in second] == [False, True, False, False]
    weights = "block.layer2.0.conv1.weight"
    assert torch.equal(before[1][weights], state(stages[1])[weights])
    assert stages[1].scaler.scaler.get_scale() < scales[1]
    assert stages[0].scaler.scaler.get_scale() == scales[0]


def test_the_shared_scaler_of_the_released_code_skips_every_block() -> None:
    config = small_config(precision={"dtype": "fp16", "shared_scaler": "reference"}, runtime="serial")
    stages = half_stages(config)
    scaler = LossScaler(torch.device("cpu"), [stage.optimizer for stage in stages], initial_scale=16.0)
    first = list(shared_scaler_step(stages, views(0), 0, [0.0] * 4, scaler))
    assert not any(report.skipped for report in first)
    overflow(stages[1])
    weights = [[p.clone() for p in stage.parameters()] for stage in stages]
    second = list(shared_scaler_step(stages, views(1), 1, [0.0] * 4, scaler))
    assert all(report.skipped for report in second)
    assert all(
        torch.equal(p, q) for s, w in zip(stages, weights, strict=True) for p, q in zip(s.parameters(), w, strict=True)
    )


def test_end_to_end_in_fp16_one_scaler_serves_all_blocks() -> None:
    """There is one loss: its scale is in the gradients of every block."""
    config = small_config(precision={"dtype": "fp16"}, mode="end_to_end")
    stages, exact = half_stages(config), build_stages(small_config(mode="end_to_end"), STEPS_PER_EPOCH)
    scaler = LossScaler(torch.device("cpu"), [stage.optimizer for stage in stages], initial_scale=16.0)
    first = list(end_to_end_step(stages, views(0), 0, [0.0] * 4, scaler=scaler))
    wanted = list(end_to_end_step(exact, views(0), 0, [0.0] * 4))
    assert not any(report.skipped for report in first)
    for half, full in zip(first, wanted, strict=True):
        assert half.gradient_norm == pytest.approx(full.gradient_norm, rel=0.1), "of the loss without its scale"
    next(stages[1].block.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    second = list(end_to_end_step(stages, views(1), 1, [0.0] * 4, scaler=scaler))
    assert all(report.skipped for report in second)


def test_a_loss_that_is_not_finite_skips_the_block_and_leaves_it_as_it_was() -> None:
    config = small_config(train={"max_skipped": 3})
    stages = build_stages(config, STEPS_PER_EPOCH)
    train(config, 2, stages)
    before = [state(stage) for stage in stages]
    with torch.no_grad():
        stages[2].block.layer3["0"].conv1.weight[0, 0, 0, 0] = float("nan")
    before[2] = state(stages[2])
    reports = train(config, 1, stages)[0]
    # What block 3 sends onward is not finite either, so block 4 cannot learn from it.
    assert [report.skipped for report in reports] == [False, False, True, True]
    for number in (2, 3):
        now = state(stages[number])
        assert all(torch.equal(now[k], v) or v.isnan().any() for k, v in before[number].items())
    train(config, 1, stages)
    with pytest.raises(TrainingError, match=r"loss is nan.*3 steps in a row.*train\.max_skipped.*stages\.3\.optimizer"):
        train(config, 1, stages)


def test_one_good_step_starts_the_count_again() -> None:
    config = small_config(train={"max_skipped": 2}, model={"cuts": []})
    stages = build_stages(config, STEPS_PER_EPOCH)
    good = views(0)
    bad = torch.full((2, 8, 3, 16, 16), float("nan"))
    for step, batch in enumerate([bad, good, bad, good]):
        stages[0](batch, step, 0.0)
        assert stages[0].update(step).skipped == batch.is_floating_point()
    assert same({k: v for k, v in state(stages[0]).items() if v.isnan().any()}, {})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"precision": {"dtype": "fp16"}, "device": "cpu"}, r"precision\.dtype: got 'fp16'.*bf16 or fp32"),
        ({"precision": {"shared_scaler": "reference"}, "runtime": "serial"}, r"precision\.shared_scaler: only fp16"),
        ({"precision": {"dtype": "fp16", "shared_scaler": "reference"}}, r"shared_scaler.*runtime=serial"),
        ({"stages": {"1": {"precision": {"tf32": True}}}}, r"stages\.1\.precision\.tf32: .*whole run"),
    ],
)
def test_what_cannot_be_computed_is_refused(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**sections)
