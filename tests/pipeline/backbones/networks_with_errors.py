"""Functions and modules of a user, each with one thing that a backbone must not have."""

from __future__ import annotations

import sys

import torch
from torch import nn

NUMBER = 3


def plain(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))


def raises():
    raise RuntimeError("no such\nthing")


def leaves():
    sys.exit(3)


def nothing():
    return None


def lazy():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(4, 3))


def halving():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0, 1), nn.ReLU())


def integers():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Integers())


def shared():
    layer = nn.Conv2d(3, 3, 1)
    other = nn.Conv2d(3, 3, 1)
    other.weight = layer.weight
    return nn.Sequential(layer, nn.ReLU(), other)


class Integers(nn.Module):
    def forward(self, x):
        return (x > 0).long()


class Gray(nn.Module):
    """Takes no colour images at all."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return self.a(x)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)

    def forward(self, x, mask):
        return self.a(x) * mask


class None_(Two):
    def forward(self):
        return None


class Unwritten(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)


class Rectified(nn.Module):
    """One layer without state, called by everybody."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.last(self.relu(self.second(self.relu(self.first(self.relu(x))))))


class Noisy(Two):
    def forward(self, x):
        return self.a(x + torch.randn(3, 1, 1))


class NoisyLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.a = Noisy(), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.a(self.inner(x))


class Early(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.a = Returning(), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.a(self.first(x))


class Returning(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        self.unused(x)
        return x


class Various(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)])
        self.pair, self.gate, self.out, self.same = Pair(), Gate(), nn.Conv2d(3, 3, 1), nn.Sequential()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.silent = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.same(x)
        size = x.shape[-1]
        for layer in self.layers:
            x = layer(x) * self.weight
        first, second = self.pair(x)
        return self.out(self.gate(first + second) * size)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.inner(x)
        return x, x + 1


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.inner(x)
        if x.sum() > 0:
            return x
        return -x
