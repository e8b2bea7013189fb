"""Accuracy after training blocks and classifier on few labelled images.

Every image gets a new random crop and flip in every epoch, keyed by (`evaluation.seed`, epoch, image), as the released
`evaluate.py` of Barlow Twins gives them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.config.places import Place
from pipeline.evaluation.few_label import FineTuned, LabelledImages, epoch_batches, fine_tune, score
from pipeline.evaluation.task import Task
from pipeline.randomness import derive_seed
from workers.evaluating.augmented_batches import augmented_load
from workers.evaluating.context import Context
from workers.evaluating.extraction import Batch, evaluation_load, in_order


def fine_tuned_accuracy(context: Context, task: Task, place: Place, rows: Tensor, seed: int) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, on the test set after the last epoch; the run's own network stays as it is.

    Args:
        context: the network and its images.
        task: the labels.
        place: what the classifier reads; the blocks up to it are trained.
        rows: which of the labelled training images are used, int64 `[n]`.
        seed: of the classifier's initial weights and of the order of the images.

    Raises:
        UserError: an image cannot be read.
    """
    settings = context.settings.few_labels
    width = context.train.features[place].shape[1]
    network = FineTuned(context.stages, place, width, task.classes, seed)
    epochs = (_training(context, task, rows, seed, epoch) for epoch in range(settings.epochs))
    fine_tune(network, epochs, settings.epochs, settings.lr_backbone, settings.lr_classifier, seed)
    return score(network, _testing(context, task))


def _training(context: Context, task: Task, rows: Tensor, seed: int, epoch: int) -> Iterator[LabelledImages]:
    chosen = [rows[positions] for positions in epoch_batches(len(rows), seed, epoch)]
    numbers: list[Batch] = [task.train_rows[some].numpy() for some in chosen]
    drawn = derive_seed("evaluation", context.settings.seed, "fine-tuning")
    crops = augmented_load(context.train_images, context.data, drawn, epoch)
    pixels = in_order(crops, numbers, context.source.extractor.threads)
    for some, images in zip(chosen, pixels, strict=True):
        yield torch.from_numpy(images), task.train_labels[some]


def _testing(context: Context, task: Task) -> Iterator[LabelledImages]:
    size = context.settings.batch_size
    numbers: list[Batch] = [some.numpy() for some in torch.split(task.test_rows, size)]
    pixels = in_order(evaluation_load(context.test_images, context.data), numbers, context.source.extractor.threads)
    for labels, images in zip(torch.split(task.test_labels, size), pixels, strict=True):
        yield torch.from_numpy(images), labels
