"""The order plan: every image once an epoch, a pure function of the step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sampler import StepPlan
from pipeline.errors import ConfigError


def epoch_of(plan: StepPlan, epoch: int) -> np.ndarray:
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return np.concatenate([plan.batch(step)[1] for step in steps])


@settings(max_examples=60)
@given(n=st.integers(2, 200), batch=st.integers(2, 60), epochs=st.integers(1, 4), drop=st.booleans())
def test_every_epoch_sees_every_image_once(n: int, batch: int, epochs: int, drop: bool) -> None:
    if batch > n or (not drop and n % batch == 1):
        return
    plan = StepPlan(n, batch, epochs, drop_last=drop, seed=3)
    assert plan.total_steps == epochs * plan.steps_per_epoch
    for epoch in range(epochs):
        order = epoch_of(plan, epoch)
        assert len(np.unique(order)) == len(order) == (n // batch * batch if drop else n)
        assert order.min() >= 0
        assert order.max() < n
    sizes = [len(plan.batch(step)[1]) for step in range(plan.total_steps)]
    assert sizes == [plan.rows(step) for step in range(plan.total_steps)]
    assert all(size == batch for size in sizes) or not drop


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    straight = StepPlan(101, 8, 5, drop_last=True, seed=1)
    forward = [straight.batch(step) for step in range(straight.total_steps)]
    for step in reversed(range(straight.total_steps)):
        epoch, indices = StepPlan(101, 8, 5, drop_last=True, seed=1).batch(step)
        assert epoch == forward[step][0] == step // 12
        np.testing.assert_array_equal(indices, forward[step][1])


def test_epochs_and_seeds_have_their_own_order() -> None:
    plan, other = StepPlan(64, 8, 3, drop_last=True, seed=1), StepPlan(64, 8, 3, drop_last=True, seed=2)
    orders = {tuple(epoch_of(p, e)) for p in (plan, other) for e in range(3)}
    assert len(orders) == 6


def test_positions_are_uniform() -> None:
    plan = StepPlan(10, 5, 4000, drop_last=True, seed=0)
    counts = np.zeros((10, 10))
    for epoch in range(4000):
        counts[np.arange(10), epoch_of(plan, epoch)] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 137  # chi squared, 81 degrees of freedom: 0.01 % point


def test_known_order() -> None:
    """The order is part of what makes a run repeatable: it must not change."""
    assert StepPlan(10, 10, 2, drop_last=True, seed=0).batch(1)[1].tolist() == [0, 1, 5, 4, 6, 9, 2, 8, 3, 7]


def test_max_steps_ends_the_plan_early_and_never_lengthens_it() -> None:
    assert StepPlan(100, 10, 3, drop_last=True, seed=0, max_steps=7).total_steps == 7
    assert StepPlan(100, 10, 3, drop_last=True, seed=0, max_steps=70).total_steps == 30
    with pytest.raises(IndexError, match="step 7 is outside of the 7 planned"):
        StepPlan(100, 10, 3, drop_last=True, seed=0, max_steps=7).batch(7)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.batch_size: a batch of 11 is more than the 10 images .*at most 10"):
        StepPlan(10, 11, 1, drop_last=True, seed=0)
    with pytest.raises(ConfigError, match=r"data.drop_last: 9 images in batches of 4 leave a last batch of one image"):
        StepPlan(9, 4, 1, drop_last=False, seed=0)
    assert StepPlan(9, 4, 1, drop_last=True, seed=0).total_steps == 2
