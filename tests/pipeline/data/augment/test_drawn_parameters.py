"""Every parameter of a view has the distribution it should have, and depends on no other, nor on its neighbours.

Wherever the released code draws with torchvision, its draws are what ours are compared with. All keys are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from pipeline.config import AugmentConfig
from pipeline.data.augment.parameters import ORDERS, draw_parameters
from pipeline.data.augment.pil_operations import ViewParameters
from tests.pipeline.data.augment.battery import SUSPECT

pytestmark = pytest.mark.long

DRAWS = 20_000
HEIGHT, WIDTH = 375, 500
AUGMENT = AugmentConfig()
Column = NDArray[np.float64]


def drawn(view: int = 0, augment: AugmentConfig = AUGMENT, epochs: int = 4, seed: int = 7) -> list[ViewParameters]:
    """Of as many images in each epoch; neighbours in the list are neighbours in the data set."""
    size = (HEIGHT, WIDTH)
    return [
        draw_parameters(augment, size, seed, epoch, i, view) for epoch in range(epochs) for i in range(DRAWS // epochs)
    ]


@pytest.fixture(scope="module")
def first() -> list[ViewParameters]:
    return drawn()


@pytest.fixture(scope="module")
def second() -> list[ViewParameters]:
    return drawn(view=1)


@pytest.fixture(scope="module")
def boxes_of_torchvision() -> list[tuple[int, int, int, int]]:
    image = Image.new("L", (WIDTH, HEIGHT))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [
            RandomResizedCrop.get_params(image, list(AUGMENT.crop_scale), [3 / 4, 4 / 3])  # type: ignore[arg-type]
            for _ in range(DRAWS)
        ]


BOX: dict[str, Callable[[int, int, int, int], float]] = {
    "area": lambda top, left, height, width: height * width,
    "log ratio": lambda top, left, height, width: math.log(width / height),
    "height": lambda top, left, height, width: height,
    "width": lambda top, left, height, width: width,
    "top": lambda top, left, height, width: top,
    "left": lambda top, left, height, width: left,
    "vertical place": lambda top, left, height, width: top / max(1, HEIGHT - height),
    "horizontal place": lambda top, left, height, width: left / max(1, WIDTH - width),
    "area and ratio": lambda top, left, height, width: height * width * math.log(width / height),
}


@pytest.mark.parametrize("name", BOX)
def test_a_crop_is_distributed_as_torchvisions(
    name: str, first: list[ViewParameters], boxes_of_torchvision: list[tuple[int, int, int, int]]
) -> None:
    ours = [BOX[name](p.top, p.left, p.height, p.width) for p in first]
    theirs = [BOX[name](*box) for box in boxes_of_torchvision]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    if name in ("area", "log ratio"):  # a distribution that is a little off would be noticed
        spread = np.std(theirs)
        assert stats.ks_2samp(np.array(ours) + 0.1 * spread, theirs).pvalue < SUSPECT


def test_the_area_is_uniform_where_the_box_always_fits() -> None:
    """Up to half of a square image every ratio fits, so no draw is thrown away."""
    augment = AugmentConfig(crop_scale=(0.1, 0.5))
    found = [draw_parameters(augment, (2000, 2000), 1, 0, i, 0) for i in range(DRAWS)]
    areas = np.array([p.height * p.width for p in found]) / 2000**2
    ratios = np.array([math.log(p.width / p.height) for p in found])
    limit = math.log(4 / 3)
    assert stats.kstest(areas, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(ratios, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    assert stats.spearmanr(areas, ratios).pvalue > 1e-3


FACTORS = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}


def column(parameters: list[ViewParameters], name: str) -> Column:
    """One number of every view that has it."""
    if name == "sigma":
        return np.array([p.blur.sigma for p in parameters if p.blur])
    return np.array([getattr(p.jitter, name) for p in parameters if p.jitter])


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("name", [*FACTORS, "sigma"])
def test_factors_are_uniform_in_their_range(
    name: str, view: int, first: list[ViewParameters], second: list[ViewParameters]
) -> None:
    low, high = FACTORS.get(name, (0.1, 2.0))
    values = column((first, second)[view], name)
    assert len(values) > DRAWS / 20
    assert values.min() >= low
    assert values.max() <= high
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_factors_are_those_of_torchvisions_jitter(strength: float) -> None:
    """Beyond 1 the range is cut off at 0, as there."""
    augment = AugmentConfig(
        jitter={"p": 1.0, "brightness": strength, "contrast": strength, "saturation": strength, "hue": 0.5}
    )
    ours = drawn(augment=augment)
    jitter = ColorJitter(strength, strength, strength, 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [
            ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[1:]
            for _ in range(DRAWS // 4)
        ]
    for place, name in enumerate(FACTORS):
        assert stats.ks_2samp(column(ours, name), [found[place] for found in theirs]).pvalue > 1e-3


@pytest.mark.parametrize("view", [0, 1])
def test_every_order_of_the_jitter_is_as_likely_as_any_other(
    view: int, first: list[ViewParameters], second: list[ViewParameters]
) -> None:
    orders = [ORDERS.index(p.jitter.order) for p in (first, second)[view] if p.jitter]
    assert len(ORDERS) == 24
    assert stats.chisquare(np.bincount(orders, minlength=24)).pvalue > 1e-3


CHANCES: dict[str, tuple[Callable[[ViewParameters], bool], tuple[float, float]]] = {
    "flip": (lambda p: p.flip, (0.5, 0.5)),
    "jitter": (lambda p: p.jitter is not None, (0.8, 0.8)),
    "gray": (lambda p: p.gray, (0.2, 0.2)),
    "blur": (lambda p: p.blur is not None, (1.0, 0.1)),
    "solarize": (lambda p: p.solarize, (0.0, 0.2)),
}


@pytest.mark.parametrize("name", CHANCES)
def test_what_happens_by_chance_happens_as_often_as_it_should(
    name: str, first: list[ViewParameters], second: list[ViewParameters]
) -> None:
    happens, chances = CHANCES[name]
    for chance, views in zip(chances, (first, second), strict=True):
        happened = np.array([happens(p) for p in views])
        assert stats.binomtest(int(happened.sum()), DRAWS, chance).pvalue > 1e-3
        if 0 < chance < 1:  # and when it does says nothing about the next image
            again = happened[1:] & happened[:-1]
            assert stats.binomtest(int(again.sum()), DRAWS - 1, chance**2).pvalue > SUSPECT


ALWAYS = AugmentConfig(jitter={"p": 1.0}, blur_p=1.0, gray_p=0.5, solarize_p=0.5, crop_scale=(0.1, 0.5))


def columns(parameters: list[ViewParameters]) -> Column:
    """`[12, DRAWS]`: all that is drawn; two of the jitter's order, the rest of it follows from no fewer."""
    rows = [
        [
            p.top / max(1, HEIGHT - p.height), p.left / max(1, WIDTH - p.width), p.height * p.width,
            math.log(p.width / p.height), p.flip, p.gray, p.solarize, p.blur.sigma, p.jitter.brightness,
            p.jitter.contrast, p.jitter.saturation, p.jitter.hue, ORDERS.index(p.jitter.order),
        ]
        for p in parameters
        if p.jitter and p.blur
    ]  # fmt: skip
    return np.array(rows, np.float64).T


def correlations(a: Column, b: Column) -> Column:
    """Of every row of one with every row of the other, in standard deviations."""
    standard = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (a, b)]
    return np.asarray(standard[0] @ standard[1].T / a.shape[1] ** 0.5)


def test_parameters_are_independent_of_each_other_and_of_those_nearby() -> None:
    views = [columns(drawn(view, ALWAYS, epochs=2)) for view in (0, 1, 2)]
    other_seed = columns(drawn(0, ALWAYS, epochs=2, seed=8))
    half = DRAWS // 2
    within = correlations(views[0], views[0])
    np.fill_diagonal(within, 0.0)
    found = {
        "within a view": within,
        "views 1 and 2": correlations(views[0], views[1]),
        "views 2 and 3": correlations(views[1], views[2]),
        "the next image": correlations(views[0][:, :-1], views[0][:, 1:]),
        "the next image, the other view": correlations(views[0][:, 1:], views[1][:, :-1]),
        "the next epoch": correlations(views[0][:, :half], views[0][:, half:]),
        "the next seed": correlations(views[0], other_seed),
    }
    farthest = {name: float(np.abs(matrix).max()) for name, matrix in found.items()}
    assert max(farthest.values()) < stats.norm.isf(SUSPECT / 100), farthest


def test_a_dependence_would_be_noticed() -> None:
    values = columns(drawn(0, ALWAYS, epochs=2))
    mixed = 0.9 * values + 0.1 * np.roll(values, 1, axis=0) * (values.std(1) / np.roll(values.std(1), 1))[:, None]
    assert np.abs(correlations(values, np.roll(mixed, 1, axis=0))).max() > 10
    assert np.abs(correlations(values, mixed) * (1 - np.eye(13))).max() > 10
