"""Few labels: the choice of labelled images, and fine-tuning of blocks and classifier on them.

The recipe for fine-tuning is that of Barlow Twins' released `evaluate.py --weights finetune` with the values of its
README for 1 % of the labels: SGD with momentum 0.9 and no weight decay, batches of 256, 20 epochs, half a cosine that
changes once per epoch, a separate rate for the classifier. As there, batch norm uses and updates its statistics while
training, and uses the running ones in tests. Fine-tuning computes in float32, whatever the precision of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from pipeline.config.places import Place
from pipeline.measures.accuracy import count_correct
from pipeline.measures.protocols import INITIAL_STD
from pipeline.randomness import generator, seeded_forward, seeded_initialisation
from pipeline.stage.stage import Stage

BATCH_SIZE = 256
MOMENTUM = 0.9
CPU = torch.device("cpu")

LabelledImages = tuple[Tensor, Tensor]
"""Images, bytes `[B, S, S, 3]`, and their classes, int64 `[B]`."""


def few_label_indices(labels: Tensor, share: float, seed: int) -> Tensor:
    """The images that keep their labels: the same share of every class, rounded, and at least one.

    With the same seed, a smaller share is a subset of a larger one.

    Args:
        labels: int64 `[N]`.
        share: above 0, at most 1.
        seed: of the choice.

    Returns:
        Ascending indices, int64 `[n]`.
    """
    chosen = []
    for label in labels.bincount().nonzero().flatten().tolist():
        members = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator(CPU, seed, "few labels", label))
        chosen.append(members[order[: max(1, round(share * len(members)))]])
    return torch.cat(chosen).sort().values


def epoch_batches(samples: int, seed: int, epoch: int, size: int = BATCH_SIZE) -> list[Tensor]:
    """The indices below `samples` in a new order every epoch, split into batches, int64 `[B]`.

    A last batch of one sample joins the batch before, because batch norm needs two.
    """
    order = torch.randperm(samples, generator=generator(CPU, seed, "fine-tuning order", epoch))
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


class FineTuned(nn.Module):
    """Copies of the blocks and the head up to a place, with a new linear classifier on top.

    Args:
        stages: of the run, from the first; not modified.
        place: of the feature that the classifier reads.
        width: of that feature, D.
        classes: C.
        seed: of the classifier's initial weights.
    """

    def __init__(self, stages: Sequence[Stage], place: Place, width: int, classes: int, seed: int) -> None:
        super().__init__()
        below = stages[: place.block]
        self._prepared, self._feature = below[0].inputs.prepared, place.feature
        self.device = below[0].compute.device
        self.blocks = nn.ModuleList(deepcopy(stage.block) for stage in below)
        self.head = None if place.feature == "trunk" else deepcopy(below[-1].head)
        self.requires_grad_()
        with seeded_initialisation(seed, "probe"):
            self.classifier = nn.Linear(width, classes)
            nn.init.normal_(self.classifier.weight, std=INITIAL_STD)
        nn.init.zeros_(self.classifier.bias)
        self.classifier.to(self.device)

    def forward(self, images: Tensor) -> Tensor:
        """Images, bytes `[B, S, S, 3]`, to logits `[B, C]`."""
        x = self._prepared(images.to(self.device))
        for block in self.blocks:
            x = block(x)
        if self.head is not None:
            x = self.head.features(x) if self._feature == "expansion" else self.head(x)
        elif x.dim() > 2:  # a map [B, C, H, W], or tokens [B, N, D]
            x = x.mean(dim=(2, 3) if x.dim() == 4 else 1)
        logits: Tensor = self.classifier(x)
        return logits


def fine_tune(
    network: FineTuned,
    epochs: Iterable[Iterable[LabelledImages]],
    count: int,
    lr_backbone: float,
    lr_classifier: float,
    seed: int,
) -> None:
    """Fine-tune all parameters of a network.

    Args:
        network: on its device.
        epochs: batches of labelled images, for `count` epochs.
        count: number of epochs, which the cosine spans.
        lr_backbone, lr_classifier: the highest learning rates.
        seed: of random numbers in the network, such as dropout.
    """
    classifier = list(network.classifier.parameters())
    backbone = [p for name, p in network.named_parameters() if not name.startswith("classifier.")]
    rates = (lr_classifier, lr_backbone)
    optimizer = SGD([{"params": classifier}, {"params": backbone}], lr_backbone, momentum=MOMENTUM)
    network.train()
    for epoch, batches in enumerate(epochs):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + cos(pi * epoch / count)) / 2
        for number, (images, labels) in enumerate(batches):
            with seeded_forward(network.device, seed, "fine-tuning", epoch, number):
                loss = F.cross_entropy(network(images), labels.to(network.device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@torch.no_grad()
def score(network: FineTuned, batches: Iterable[LabelledImages]) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0 to 1, in evaluation mode; a label without an output counts as an error."""
    network.eval()
    top1 = top5 = samples = 0
    for images, labels in batches:
        first, five = count_correct(network(images), labels.to(network.device))
        top1, top5, samples = top1 + first, top5 + five, samples + len(labels)
    return top1 / samples, top5 / samples
