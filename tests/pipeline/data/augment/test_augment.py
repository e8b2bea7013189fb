"""How views are drawn: keyed, distributed as torchvision draws them, and the same bits as ever."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from pipeline.config import AugmentConfig, JitterConfig
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import Blur, Jitter, ViewParameters
from tests.pipeline.data.samples import assert_frequency, assert_uncorrelated, assert_uniform

SAMPLES = 4000


def test_a_run_of_today_draws_what_runs_have_always_drawn() -> None:
    """Written down when the first version was made; a change here changes every run that anyone has made."""
    drawn = {
        (view, index): draw_parameters(AugmentConfig(), (300, 400), 5, 4, index, view)
        for view in (0, 1)
        for index in (1, 2)
    }
    assert drawn == {
        (0, 1): ViewParameters(
            9, 161, 206, 159, True,
            Jitter(1.2503566731192706, 0.6458528047424977, 0.8143660958841921, 0.09258076681346003, (2, 1, 3, 0)),
            True, Blur(1.3293257433849155, None),
        ),
        (0, 2): ViewParameters(
            92, 52, 167, 154, True,
            Jitter(1.1001146792066052, 0.7429774216258682, 0.939160461466669, 0.05108602522329439, (2, 1, 3, 0)),
            True, Blur(1.1519802002621335, None),
        ),
        (1, 1): ViewParameters(
            14, 23, 279, 348, True,
            Jitter(0.7077956392775634, 0.7600316151090009, 0.8320024279587398, 0.01678402332413434, (3, 0, 1, 2)),
            solarize=True,
        ),
        (1, 2): ViewParameters(3, 77, 240, 277),
    }  # fmt: skip


def test_every_part_of_the_key_matters_and_nothing_else() -> None:
    keys = list(itertools.product((0, 1, 2**31 - 1), (0, 1), (0, 1, 2**40), (0, 1)))
    drawn = {key: draw_parameters(AugmentConfig(), (300, 400), *key) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert all(draw_parameters(AugmentConfig(), (300, 400), *key) == drawn[key] for key in reversed(keys))


def test_switching_an_operation_off_does_not_shift_the_other_draws() -> None:
    off = AugmentConfig(flip_p=0.0, gray_p=0.0, blur_p=(0.0, 0.0), jitter=JitterConfig(p=0.0), solarize_p=(0.0, 0.0))
    on = AugmentConfig(flip_p=1.0, gray_p=1.0, blur_p=(1.0, 1.0), jitter=JitterConfig(p=1.0), solarize_p=(1.0, 1.0))
    mixed = AugmentConfig(crop_p=0.5, noise_std=(0.1, 0.1))
    for index in range(200):
        nothing, everything, some = (draw_parameters(c, (300, 400), 5, 1, index, 1) for c in (off, on, mixed))
        assert everything.jitter is not None
        assert everything.blur is not None
        assert (everything.flip, everything.gray, everything.solarize) == (True, True, True)
        assert nothing == ViewParameters(*box(everything))
        assert box(some) in (box(everything), (0, 0, 300, 400))
        assert some.jitter in (None, everything.jitter)
        assert some.blur in (None, everything.blur)


PROBABILITIES = ("crop_p", "flip_p", "gray_p", "blur_p", "solarize_p", "jitter")


@pytest.mark.parametrize("key", PROBABILITIES)
@pytest.mark.parametrize("view", [0, 1])
def test_every_operation_has_a_probability_for_each_view(key: str, view: int) -> None:
    """Always in one view, never in the other, whatever the draws; everything else is off."""
    pair = (1.0, 0.0) if view == 0 else (0.0, 1.0)
    values = dict.fromkeys(PROBABILITIES, (0.0, 0.0)) | {key: pair}
    config = AugmentConfig(**values | {"jitter": JitterConfig(p=values["jitter"])})
    for index in range(100):
        there, elsewhere = (draw_parameters(config, (300, 400), 1, 0, index, v) for v in (view, 1 - view))
        assert operations(there) == {key}
        assert operations(elsewhere) == set()


def operations(p: ViewParameters) -> set[str]:
    found = {
        "crop_p": box(p) != (0, 0, 300, 400),
        "flip_p": p.flip,
        "gray_p": p.gray,
        "blur_p": p.blur is not None,
        "solarize_p": p.solarize,
        "jitter": p.jitter is not None,
    }
    return {key for key, present in found.items() if present}


def box(p: ViewParameters) -> tuple[int, int, int, int]:
    return p.top, p.left, p.height, p.width


def test_the_kind_of_blur_changes_nothing_but_the_kernel() -> None:
    for index in range(50):
        pil = draw_parameters(AugmentConfig(), (300, 400), 1, 0, index, 0)
        kernel = draw_parameters(AugmentConfig(blur_kind="kernel", blur_kernel=0.3), (300, 400), 1, 0, index, 0)
        assert pil.blur is not None
        assert kernel == replace(pil, blur=Blur(pil.blur.sigma, 0.3))


@pytest.fixture(scope="module")
def drawn() -> dict[int, list[ViewParameters]]:
    return {v: [draw_parameters(AugmentConfig(), (300, 400), 11, 4, i, v) for i in range(SAMPLES)] for v in (0, 1)}


def test_probabilities_are_the_released_ones(drawn: dict[int, list[ViewParameters]]) -> None:
    expected = {0: (0.5, 0.8, 0.2, 1.0, 0.0), 1: (0.5, 0.8, 0.2, 0.1, 0.2)}
    for view, parameters in drawn.items():
        found = (
            [p.flip for p in parameters],
            [p.jitter is not None for p in parameters],
            [p.gray for p in parameters],
            [p.blur is not None for p in parameters],
            [p.solarize for p in parameters],
        )
        for probability, values in zip(expected[view], found, strict=True):
            assert_frequency(values, probability)


@pytest.mark.parametrize("probability", [(0.3, 0.3), (0.75, 0.2)])
def test_crops_are_as_frequent_as_asked_and_independent_of_all_else(probability: tuple[float, float]) -> None:
    """Colour, not area, stands for the other draws of the view: a view without a crop has the whole area."""
    config = AugmentConfig(crop_p=probability, jitter=JitterConfig(p=1.0), blur_p=1.0, solarize_p=0.5)
    columns: list[list[float]] = []
    for view in (0, 1):
        views = [draw_parameters(config, (300, 400), 11, 4, index, view) for index in range(SAMPLES)]
        cropped = [box(p) != (0, 0, 300, 400) for p in views]
        assert_frequency(cropped, probability[view])
        columns += [[float(c) for c in cropped], [p.jitter.brightness for p in views], [p.blur.sigma for p in views]]
        columns += [[float(p.flip) for p in views], [float(p.gray) for p in views], [p.jitter.hue for p in views]]
        columns += [[float(p.solarize) for p in views], [float(p.jitter.order[0]) for p in views]]
    assert_uncorrelated(columns)


def test_factors_and_radii_are_uniform_and_orders_equally_likely(drawn: dict[int, list[ViewParameters]]) -> None:
    jitters = [p.jitter for p in drawn[0] if p.jitter]
    assert_uniform([j.brightness for j in jitters], 0.6, 1.4)
    assert_uniform([j.contrast for j in jitters], 0.6, 1.4)
    assert_uniform([j.saturation for j in jitters], 0.8, 1.2)
    assert_uniform([j.hue for j in jitters], -0.1, 0.1)
    assert_uniform([p.blur.sigma for p in drawn[0] if p.blur], 0.1, 2.0)
    counts = {order: sum(j.order == order for j in jitters) for order in itertools.permutations(range(4))}
    mean = len(jitters) / 24
    chi_squared = sum((count - mean) ** 2 / mean for count in counts.values())
    assert chi_squared < 49.7  # 0.1 % point for 23 degrees of freedom


def test_views_epochs_and_operations_are_independent(drawn: dict[int, list[ViewParameters]]) -> None:
    later = [draw_parameters(AugmentConfig(), (300, 400), 11, 5, i, 0) for i in range(SAMPLES)]
    columns = [[float(p.height * p.width) for p in part] for part in (drawn[0], drawn[1], later)]
    columns += [[float(p.flip) for p in drawn[0]], [float(p.gray) for p in drawn[0]], [p.top for p in drawn[0]]]
    columns += [[p.blur.sigma if p.blur else 0.0 for p in drawn[0]], [float(p.jitter is not None) for p in drawn[0]]]
    assert_uncorrelated(columns, but=((0, 5),))  # a large crop cannot start low: that dependence is right


@pytest.mark.parametrize(
    ("height", "width"),
    [(28, 28), (400, 90), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((300, 400), (60, 400)))],
)
def test_crop_boxes_are_distributed_as_torchvision_draws_them(height: int, width: int) -> None:
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    reference = np.asarray([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(SAMPLES)])
    ours = [draw_parameters(AugmentConfig(), (height, width), 2, 0, i, 0) for i in range(SAMPLES)]
    boxes = np.asarray([(p.top, p.left, p.height, p.width) for p in ours])
    assert (boxes >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    for column in range(4):
        grid = np.union1d(boxes[:, column], reference[:, column])
        cdfs = [np.searchsorted(np.sort(b[:, column]), grid, side="right") / SAMPLES for b in (boxes, reference)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < 1.95 * (2 / SAMPLES) ** 0.5  # two-sample, 0.1 % point


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10), (30, 31)])
def test_the_fallback_is_torchvisions_centre_crop(height: int, width: int) -> None:
    """Boxes of the whole area hardly ever fit; then all ten tries fail."""
    scale = (0.9999, 1.0)
    reference = RandomResizedCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    boxes = [draw_parameters(AugmentConfig(crop_scale=scale), (height, width), 0, 0, i, 0) for i in range(20)]
    found = {(p.top, p.left, p.height, p.width) for p in boxes}
    if width / height > 4 / 3 or width / height < 3 / 4:
        assert found == {tuple(reference)}
    else:
        assert (0, 0, height, width) in found
