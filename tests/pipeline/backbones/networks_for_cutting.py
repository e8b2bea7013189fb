"""Networks of a user: functions at the boundaries, constants, modes, operations in place, tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def plain(width=4):
    """Six children, each a cut point."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2), nn.ReLU(inplace=True)),
        nn.Identity(),
        nn.Conv2d(2 * width, width, 1),
    )


class Functional(nn.Module):
    """Functions at the boundaries, a parameter on each side, and a classifier."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.scale, self.shift = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.rand(1, 4, 1, 1))
        self.head = nn.Linear(6, 10)

    def forward(self, x, temperature=2.0, **_):
        scale = self.scale.abs()
        x = F.gelu(self.first(x) * scale)
        n, c = x.shape[:2]
        x = (x + self.shift.expand(n, c, 1, 1)) / temperature
        return self.head(self.second(F.max_pool2d(F.silu(x), 2)).mean(dim=(2, 3)))


class Constants(nn.Module):
    """A constant on both sides, one that is saved, one made in forward, and one of an inner module."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), Inner()
        self.mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
        self.register_buffer("gain", torch.full((3, 1, 1), 1.5))
        self.register_buffer("unsaved", torch.full((3, 1, 1), 0.5), persistent=False)

    def forward(self, x):
        x = self.a((x - self.mean) * self.gain) - self.mean
        return self.b(x * torch.tensor([2.0]) + self.unsaved)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 2, 1)
        self.offset = torch.ones(2, 1, 1)

    def forward(self, x):
        return self.c(x if x.mean() > 1e9 else -x) + self.offset


class Modes(nn.Module):
    """Its own forward, not a layer's, depends on the mode."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 9, 1)

    def forward(self, x):
        x = self.a(x)
        if self.training:
            self.aux(x)
            return self.b(F.dropout(x * 3, 0.0, training=self.training))
        return self.b(F.dropout(x, 0.9, training=self.training))


class InPlace(nn.Module):
    """Operations in place whose results nothing reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.a(x)
        x += 1
        F.relu(x, True)
        x.mul_(3)
        x = self.b(x)
        self.act(x)
        y = self.c(x)
        torch.relu_(y)
        return y * 1


class TokensOf(nn.Module):
    """A sequence of tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8), nn.LayerNorm(8)
        self.tokens = nn.Sequential(nn.Flatten(2), Swap())

    def forward(self, x):
        return self.norm(self.mix(self.tokens(self.embed(x))))


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)
