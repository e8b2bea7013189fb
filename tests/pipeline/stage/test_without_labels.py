"""Images without labels, and what wants labels: told before a run, or before a classifier is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.task import Task
from pipeline.validation.online import check_labels
from tests.pipeline.small import small_config


@pytest.mark.parametrize(
    ("online", "key"),
    [
        ({"linear": True}, "evaluation.online.linear"),
        ({"knn_bank": 64}, "evaluation.online.knn_bank"),
    ],
)
def test_a_measure_that_needs_labels_is_refused_where_there_are_none(online: dict[str, Any], key: str) -> None:
    config = small_config(evaluation={"online": online})
    check_labels(config, 10)
    with pytest.raises(ConfigError, match=rf"^{key}: needs labels, and the images of .* have none\. Leave it out"):
        check_labels(config, 0)


def test_a_measure_that_needs_no_labels_is_taken_without_them() -> None:
    check_labels(small_config(evaluation={"online": {"quality_every": 10}}), 0)


def test_images_that_stand_in_for_others_need_a_feed_that_knows_their_labels() -> None:
    sections: dict[str, Any] = {"objective": {"kind": "supervised"}}
    small_config(**sections, data={"feed": "coordinator", "on_error": "skip"})
    small_config(**sections, data={"feed": "stages", "on_error": "fail"})
    small_config(data={"feed": "stages", "on_error": "skip"})
    with pytest.raises(ConfigError, match=r"^data\.on_error: .*does not know which image replaces.*on_error=fail or"):
        small_config(**sections, data={"feed": "stages", "on_error": "skip"})


def labelled(*labels: int) -> FeatureSet:
    return FeatureSet({}, torch.tensor(labels))


@pytest.mark.parametrize(
    ("train", "test", "why"),
    [
        ((-1, -1), (0, 1), "no training image of DATA has a label"),
        ((0, 1), (-1,), "no test image of DATA has a label"),
        ((1, -1, 1), (0, 1), r"all training images of DATA are of one class.*evaluation\.linear=\[\]"),
    ],
)
def test_a_classifier_needs_labels_on_both_sides_and_two_classes(
    train: tuple[int, ...], test: tuple[int, ...], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        Task(labelled(*train), labelled(*test), "DATA")


def test_images_without_a_label_are_left_out_and_classes_are_numbered_without_gaps() -> None:
    task = Task(labelled(7, -1, 3), labelled(3, 5, -1, 7), "DATA")
    assert (task.classes, task.unknown) == (2, 1)
    assert (task.train_rows.tolist(), task.train_labels.tolist()) == ([0, 2], [1, 0])
    assert (task.test_rows.tolist(), task.test_labels.tolist()) == ([0, 1, 3], [0, 2, 1])
