"""Learning rates at the steps where something happens: warm-up, whole and fractional, milestones, the end."""

from __future__ import annotations

from math import cos, pi

import pytest
from pydantic import ValidationError

from pipeline.config import optimizers as settings
from pipeline.optim import WarmupConstant, WarmupCosine, WarmupStep, build_schedule


def test_cosine_warms_up_and_ends_where_it_should() -> None:
    schedule = WarmupCosine(2.0, 10, 110, 0.001)
    assert [schedule(0), schedule(5), schedule(10)] == [0.0, 1.0, 2.0]
    assert schedule(35) == pytest.approx(2 * (0.5 + 0.25 * 2**0.5) + 0.002 * (0.5 - 0.25 * 2**0.5))
    assert schedule(60) == pytest.approx(1.001)
    assert schedule(110) == pytest.approx(0.002)
    assert WarmupCosine(2.0, 0, 100, 0.0)(0) == 2.0


def test_a_warmup_that_ends_between_two_steps() -> None:
    schedule = WarmupCosine(2.0, 2.5, 102, 0.0)
    assert [schedule(0), schedule(1), schedule(2)] == pytest.approx([0.0, 0.8, 1.6])
    assert schedule(3) == pytest.approx(1 + cos(pi * 0.5 / 99.5))


def test_constant_stays() -> None:
    schedule = WarmupConstant(2.0, 4)
    assert [schedule(step) for step in (0, 1, 4, 1000)] == [0.0, 0.5, 2.0, 2.0]


def test_step_falls_at_its_milestones() -> None:
    schedule = WarmupStep(2.0, 4, steps_per_epoch=10, milestones=(3.0, 5.5), gamma=0.1)
    assert [schedule(step) for step in (2, 4, 29)] == [1.0, 2.0, 2.0]
    assert [schedule(30), schedule(54)] == pytest.approx([0.2, 0.2])
    assert [schedule(55), schedule(1000)] == pytest.approx([0.02, 0.02])


def test_a_milestone_in_the_warmup_counts_from_the_end_of_it() -> None:
    schedule = WarmupStep(2.0, 20, steps_per_epoch=10, milestones=(1.0,), gamma=0.5)
    assert [schedule(step) for step in (5, 10, 19, 20)] == pytest.approx([0.5, 1.0, 1.9, 1.0])


def test_a_milestone_in_decimals_is_not_a_step_late() -> None:
    assert 0.07 * 100 > 7, "a product of decimals would be"
    for step in range(1, 300):
        schedule = WarmupStep(1.0, 0, steps_per_epoch=100, milestones=(step / 100,), gamma=0.5)
        assert [schedule(step - 1), schedule(step)] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("config", "step", "expected"),
    [
        (settings.LarsConfig(), 10 * 7 - 1, 1.6 * 69 / 70),
        (settings.LarsConfig(), 10 * 7, 1.6),
        (settings.LarsConfig(), 40 * 7, 0.0016),
        (settings.LarsConfig(lr=0.3, scale_lr=False, warmup_epochs=0), 0, 0.3),
        (settings.LarsConfig(warmup_epochs=0.5), 3, 1.6 * 3 / 3.5),
        (settings.SGDConfig(lr=0.1, schedule="step", milestones=(20.0, 30.0), gamma=0.5), 30 * 7, 0.2),
        (settings.SGDConfig(lr=0.1, schedule="step", milestones=(20.0, 30.0), gamma=0.5), 30 * 7 - 1, 0.4),
        (settings.AdamWConfig(schedule="constant", warmup_epochs=1), 3, 0.008 * 3 / 7),
        (settings.AdamWConfig(schedule="constant"), 39 * 7, 0.008),
    ],
)
def test_a_run_of_40_epochs_of_7_steps_of_2048_images(
    config: settings.ScheduledConfig, step: int, expected: float
) -> None:
    assert build_schedule(config, batch_size=2048, epochs=40, steps_per_epoch=7)(step) == pytest.approx(expected)


def test_a_schedule_is_a_function_of_the_step_alone() -> None:
    schedule = build_schedule(settings.LarsConfig(), 2048, 40, 7)
    forward = [schedule(step) for step in range(280)]
    assert [schedule(step) for step in reversed(range(280))] == forward[::-1]


@pytest.mark.parametrize(
    ("values", "key", "problem"),
    [
        ('{"schedule": "step"}', "milestones", "there are none"),
        ('{"schedule": "step", "milestones": []}', "milestones", "there are none"),
        ('{"schedule": "step", "milestones": [80, 60.5]}', "milestones", "[80, 60.5], which does not increase"),
        ('{"schedule": "step", "milestones": [60, 60]}', "milestones", "does not increase"),
        ('{"momentum": 0, "nesterov": true}', "nesterov", "is made of the momentum, which is 0"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_words(values: str, key: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings.SGDConfig.model_validate_json(values)
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    found, _, remedy = str(error["ctx"]["error"]).partition(". ")
    assert problem in found
    assert remedy.startswith("Give ")


@pytest.mark.parametrize(
    "values",
    [
        '{"schedule": "step", "milestones": [60, 80.5]}',
        '{"schedule": "constant"}',
        '{"milestones": [60, 80]}',
        '{"nesterov": true}',
        '{"momentum": 0}',
    ],
)
def test_values_that_make_sense_are_taken(values: str) -> None:
    config = settings.SGDConfig.model_validate_json(values)
    assert settings.SGDConfig.model_validate_json(config.model_dump_json()) == config
