"""What is said that an evaluation takes, against the tensors of a real one."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from launch.plan.account import DataFacts, EvaluationAccount
from launch.plan.evaluation import evaluation_account
from pipeline.config import Config
from pipeline.evaluation.blocks import FEATURES
from pipeline.evaluation.features import embed, places_of
from pipeline.measures.linear import fitting_bytes, linear_probe_accuracy
from tests.launch.plan.measured import MARK, largest_sum
from tests.pipeline.small import small_config
from workers.determinism.child import run_in_child
from workers.evaluating.probe_table import ready_stages

IMAGES, TESTS, CLASSES = 40, 10, 4
CONFIG = small_config(
    data={"batch_size": 8, "image_size": 16},
    evaluation={"batch_size": 32, "cache": False},
    model={"backbone": "resnet18", "width": 16, "stem": "cifar"},
)


def account_of(config: Config, **facts: int) -> EvaluationAccount:
    """In a child, as tests/launch/plan/test_process_memory.py."""
    from dataclasses import asdict

    outcome = run_in_child(lambda: asdict(evaluation_account(config, DataFacts(**facts), "cpu")), 200.0)
    assert outcome.result is not None, outcome
    return EvaluationAccount(**outcome.result)


@pytest.mark.processes
def test_features_and_a_batch_take_what_they_take_in_a_real_network() -> None:
    account = account_of(CONFIG, images=IMAGES, test_images=TESTS, classes=CLASSES)
    stages = ready_stages(CONFIG, torch.device("cpu"))
    places = places_of(stages, (*FEATURES, "projector"))
    images = torch.zeros(32, 16, 16, 3, dtype=torch.uint8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with record_function(f"{MARK}1"):
            pass
        features = embed(stages, images, places)
    seen = largest_sum(profiled, workspaces=True)
    assert abs(account.batch - images.nbytes - seen) <= 0.1 * seen, (account.batch, seen)
    kept = {place: rows for place, rows in features.items() if place.feature in FEATURES}
    assert account.features_per_image == sum(rows.nbytes for rows in kept.values()) // 32
    assert account.features == (IMAGES + TESTS) * account.features_per_image
    assert account.network == sum(t.nbytes for stage in stages for t in (*stage.parameters(), *stage.buffers()))
    assert account.host_peak is not None
    assert account.host_peak >= account.features + account.network


def test_a_probe_takes_what_is_said_when_it_is_fitted() -> None:
    rows, width, classes = 2000, 128, 10
    train, test = torch.randn(rows, width), torch.randn(rows // 5, width)
    labels = torch.arange(rows) % classes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with record_function(f"{MARK}1"):
            pass
        linear_probe_accuracy(train, labels, test, labels[: rows // 5], iterations=2)
    seen, computed = largest_sum(profiled, workspaces=True), fitting_bytes(rows, rows // 5, width, classes)
    assert seen <= computed * 1.02
    assert seen >= computed * 0.9


@pytest.mark.processes
def test_without_the_data_only_one_image_is_known() -> None:
    account = account_of(CONFIG)
    assert account.features is account.host_peak is account.end_of_training is None
    assert account.features_per_image > 0
