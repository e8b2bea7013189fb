"""What each precision promises: fp32 the same bits again, the others what their parts give; fp16 a scaled loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from pipeline.config import Config, PrecisionConfig
from pipeline.errors import ConfigError, TrainingError
from pipeline.precision import DTYPES, Compute, LossScaler
from pipeline.serial import build_stages, end_to_end_step, shared_scaler_step
from pipeline.stage.stage import Stage
from tests.pipeline.by_hand import backward_by_hand, forward_by_hand, same_gradients, step_by_hand
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, train, views

pytestmark = pytest.mark.long

SCALE = 16.0
"""Of an fp16 loss: at this nothing overflows by itself."""


def losses(config: Config, steps: int = 3) -> torch.Tensor:
    return torch.tensor([[report.loss for report in step] for step in train(config, steps)])


def test_fp32_is_reproducible_to_the_bit() -> None:
    assert torch.equal(losses(small_config()), losses(small_config()))


FORMATS: dict[str, dict[str, object]] = {
    "bf16": {"dtype": "bf16"},
    "fp16": {"dtype": "fp16"},
    "channels_last": {"channels_last": True},
    "both": {"dtype": "bf16", "channels_last": True},
}


@pytest.mark.parametrize("precision", FORMATS.values(), ids=list(FORMATS))
def test_a_cheaper_format_learns_to_the_bit_what_its_parts_give_by_hand(precision: dict[str, object]) -> None:
    """Network and head under autocast, the loss in float32, float32 weights moved by gradients without a scale."""
    dtype = DTYPES[str(precision.get("dtype", "fp32"))]
    layout = torch.channels_last if "channels_last" in precision else torch.contiguous_format
    config = small_config(precision=precision)
    stages = half_stages(config) if dtype == torch.float16 else build_stages(config, STEPS_PER_EPOCH)
    composed = [parts.to(memory_format=layout) for parts in build_stages(small_config(), STEPS_PER_EPOCH)]
    for step in range(2):
        taken: torch.Tensor = views(step)
        for stage, parts in zip(stages, composed, strict=True):
            sent = stage(taken, step, 0.0)
            outputs = forward_by_hand(parts, taken, dtype, layout, step)
            assert sent.dtype == dtype
            assert torch.equal(sent, torch.stack(outputs))
            wanted = backward_by_hand(parts, outputs, dtype, scale=SCALE if stage.scaler else 1.0)
            assert stage.update(step).loss == wanted
            assert same_gradients(stage, parts)
            step_by_hand(parts, step)
            assert same(dict(stage.state_dict()), dict(parts.state_dict()))
            taken = sent
    assert all(stage.scaler is None or stage.scaler.scaler.get_scale() == SCALE for stage in stages), "no overflow"


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
    for step in range(2):
        sent: torch.Tensor = views(step)
        for number, dtype in enumerate((torch.bfloat16, torch.float32) * 2):
            taken = sent if number == 0 else sent.to(dtype)
            sent = mixed[number](sent, step, 0.0)
            assert sent.dtype == dtype
            assert torch.equal(sent, alike[dtype][number](taken, step, 0.0))
            assert mixed[number].update(step).loss == alike[dtype][number].update(step).loss


@pytest.mark.parametrize("how", ["channels_last", pytest.param("compile", marks=pytest.mark.slow)])
def test_layout_and_compiler_change_only_the_last_digits_and_no_name(how: str) -> None:
    """In float64, whose rounding stays below 1e-12 here; a wrong axis or a step that is left out changes the first."""
    config, plain = (small_config(model={"cuts": []}, precision=precision) for precision in ({how: True}, {}))
    stages = [Stage(c, 1, STEPS_PER_EPOCH, dtype=torch.float64) for c in (config, plain)]
    for step in range(3):
        images = torch.rand(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        sent = [stage(images, step, 0.0) for stage in stages]
        torch.testing.assert_close(*sent, rtol=1e-9, atol=1e-9)
        assert stages[0].update(step).loss == pytest.approx(stages[1].update(step).loss, rel=1e-9)
    assert stages[0].state_dict().keys() == stages[1].state_dict().keys()


@pytest.fixture
def compiled_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    """The inputs of every graph that the compiler is given, which then runs as it is: that takes no C++."""
    graphs: list[list[Any]] = []

    def note(graph: Any, inputs: list[Any]) -> Any:
        graphs.append(list(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=note))
    yield graphs
    torch.compiler.reset()


def test_every_block_is_compiled_for_its_own_shapes_alone(compiled_for: list[list[Any]]) -> None:
    """In one process the second block was compiled for shapes of any size, whose kernels round in another way.

    A pipelined run, a process a block, then repeated itself, a serial run repeated itself, and the two differed.
    """
    two = {"cuts": ["layer3"]}
    config = small_config(model=two, precision={"compile": True})
    assert torch.equal(losses(config, 2), losses(small_config(model=two), 2))
    assert len(compiled_for) >= config.num_stages
    assert all(isinstance(x, torch.Tensor) for inputs in compiled_for for x in inputs), "no size is an input"
    assert {type(size) for inputs in compiled_for for x in inputs for size in x.shape} == {int}


def test_a_run_of_many_shapes_never_goes_on_uncompiled(compiled_for: list[list[Any]]) -> None:
    """The compiler gave up after the eighth shape, went on without compiling, and said nothing."""
    module = Compute(PrecisionConfig(compile=True), torch.device("cpu"), torch.float32).prepare(torch.nn.Linear(4, 4))
    for rows in range(2, 22):
        module(torch.ones(rows, 4))
    assert len(compiled_for) == 20


def half_stages(config: Config) -> list[Stage]:
    """fp16 stages on the CPU, which the configuration refuses for its slowness; the arithmetic is the same."""
    stages = build_stages(config, STEPS_PER_EPOCH)
    for stage in stages:
        stage.scaler = LossScaler(torch.device("cpu"), [stage.optimizer], initial_scale=SCALE)
    return stages


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
    scaler = LossScaler(torch.device("cpu"), [stage.optimizer for stage in stages], initial_scale=SCALE)
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
    stages, composed = half_stages(config), build_stages(small_config(mode="end_to_end"), STEPS_PER_EPOCH)
    scaler = LossScaler(torch.device("cpu"), [stage.optimizer for stage in stages], initial_scale=SCALE)
    first = list(end_to_end_step(stages, views(0), 0, [0.0] * 4, scaler=scaler))
    assert not any(report.skipped for report in first)
    outputs: Iterable[torch.Tensor] = views(0)
    for parts in composed:
        outputs = forward_by_hand(parts, outputs, torch.float16, torch.contiguous_format, 0)
    assert backward_by_hand(composed[-1], list(outputs), torch.float16, SCALE) == first[-1].loss
    for stage, report, parts in zip(stages, first, composed, strict=True):
        for p in parts.parameters() if parts is not composed[-1] else ():
            p.grad /= SCALE
        assert same_gradients(stage, parts)
        norm = torch.cat([p.grad.double().flatten() for p in stage.parameters()]).norm().item()
        assert report.gradient_norm == pytest.approx(norm, rel=1e-5), "without the scale, which is 16"
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


def test_a_stage_in_fp16_begins_with_the_scale_that_torch_begins_with() -> None:
    """As the released code does, so that the first steps of both skip alike."""
    stages = build_stages(small_config(precision={"dtype": "fp16"}), STEPS_PER_EPOCH)
    expected = GradScaler("cpu").get_scale()
    assert [stage.scaler.scaler.get_scale() for stage in stages if stage.scaler] == [expected] * len(stages)


def test_fp16_measures_and_clips_gradients_at_their_own_size_and_not_at_that_of_the_scaled_loss() -> None:
    """What is left in the parameters after the step is what was measured; the clipped norm is the one asked for."""
    for clip in (None, 0.1):
        config = small_config(
            precision={"dtype": "fp16"},
            optimizer={"kind": "sgd", "warmup_epochs": 1, **({} if clip is None else {"clip_norm": clip})},
            metrics={"norms_every": 1},
        )
        (stage, *_) = half_stages(config)
        stage(views(0), 0, 0.0)
        report = stage.update(0)
        assert not report.skipped
        assert report.gradient_norm is not None
        left = stage.engine.gradient_norm()
        if clip is None:
            assert report.gradient_norm == left
        else:
            assert report.gradient_norm > 2 * clip, "it is measured before it is clipped"
            assert left == pytest.approx(clip, rel=1e-3)
