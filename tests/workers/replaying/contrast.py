"""A network of a user's own with a mistake: it divides by the contrast of an image, and a blank one has none."""

from __future__ import annotations

from torch import Tensor, nn


class Contrast(nn.Module):
    """Scales every image to a standard deviation of 1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


class Contrasted(nn.Module):
    """Two units behind it, to be cut after `first`."""

    def __init__(self) -> None:
        super().__init__()
        self.contrast = Contrast()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(self.contrast(x)))
        return result


CONTRASTED = """
seed: 1
train: {epochs: 4, max_steps: 3}
data: {name: image_folder, batch_size: 8, image_size: 16, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
model: {backbone: "tests.workers.replaying.contrast:Contrasted", output: second, cuts: [first]}
head: {width: 16, projector: [16, 16]}
optimizer: {warmup_epochs: 1}
evaluation: {linear_probe: false}
"""
