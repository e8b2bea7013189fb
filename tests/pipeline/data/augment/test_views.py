"""ViewMaker, with both backends: what it is told decides the pixels, and nothing that it did before."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from pipeline.config import AugmentConfig, DataConfig, JitterConfig
from pipeline.config.data import CropsConfig
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import ViewParameters, apply
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.data.augment.views import PARTS, ViewMaker
from tests.pipeline.data.samples import photo, views_of

BACKENDS = ("fast", "pil")
SIZES = (24, 72)
"""Of views: the fast backend works otherwise on small ones."""
BUSY = AugmentConfig(gray_p=0.3, blur_p=0.6, solarize_p=0.3, noise_std=(0.0, 0.02), crop_p=0.9)
"""Everything happens often, and often does not."""
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def maker(backend: str, augment: AugmentConfig = BUSY, num_views: int = 2, seed: int = 1, **keys: object) -> ViewMaker:
    return ViewMaker(DataConfig(augment=augment, augment_backend=backend), num_views, seed, **keys)


def made(by: ViewMaker, pixels: np.ndarray, index: int, size: int = 24, epoch: int = 0, views: int = 2) -> np.ndarray:
    out = np.zeros((views, size, size, 3), np.uint8)
    by.make(pixels, epoch, index, list(out))
    return out


@cache
def images() -> list[np.ndarray]:
    """Colour and gray, several sizes, read-only as PIL gives them."""
    return [np.asarray(photo(mode, h, w)) for mode, (h, w) in itertools.product(("RGB", "L"), ((40, 52), (31, 90)))]


def test_a_sample_alone_is_the_sample_in_any_order_after_any_other(backend: str) -> None:
    """Sizes and channels change from one to the next, so that what is left in memory would show."""
    jobs = [(n, index, size) for n, index, size in itertools.product(range(4), range(15), (8, 33, 72))]
    alone = {job: made(maker(backend), images()[job[0]], *job[1:]) for job in jobs}
    one = maker(backend)
    for job in (*jobs, *reversed(jobs), *np.random.default_rng(0).permutation(jobs).tolist()):
        np.testing.assert_array_equal(made(one, images()[job[0]], *job[1:]), alone[tuple(job)], err_msg=str(job))


def test_the_image_is_left_as_it_is(backend: str) -> None:
    for pixels in images():
        given = pixels.copy()
        for index in range(10):
            made(maker(backend), given, index)
        np.testing.assert_array_equal(given, pixels)


@pytest.mark.parametrize(
    "augment", [BUSY, AugmentConfig(crop_p=0.0, jitter=JitterConfig(p=1.0, hue=0.5), blur_kind="kernel")]
)
def test_a_gray_image_is_the_colour_image_of_the_same_levels(backend: str, augment: AugmentConfig) -> None:
    """Without noise, which a colour image has in every channel."""
    quiet = augment.model_copy(update={"noise_std": (0.0, 0.0)})
    gray = np.asarray(photo("L", 61, 47))
    color = np.ascontiguousarray(np.broadcast_to(gray[..., None], (*gray.shape, 3)))
    for index, size in itertools.product(range(60), (*SIZES, 33)):
        one, three = (made(maker(backend, quiet), pixels, index, size) for pixels in (gray, color))
        np.testing.assert_array_equal(one, three, err_msg=str(index))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 3), (3, 1000), (1000, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_of_odd_sizes(backend: str, height: int, width: int, mode: str) -> None:
    """A row of one level has only this level in all its views."""
    channels = (3,) if mode == "RGB" else ()
    flat = np.full((height, width, *channels), 77, np.uint8)
    plain = AugmentConfig(jitter=JitterConfig(p=0.0), solarize_p=0.0)
    busy = np.random.default_rng(0).integers(0, 256, flat.shape, dtype=np.uint8)
    for index, size in itertools.product(range(20), SIZES):
        assert (made(maker(backend, plain), flat, index, size) == 77).all()
        made(maker(backend), busy, index, size)


def test_views_epochs_images_and_seeds_differ(backend: str) -> None:
    pixels = images()[0]
    keys = itertools.product((1, 2), (0, 1), (3, 4))
    views = [made(maker(backend, seed=s), pixels, index, epoch=e)[v] for s, e, index in keys for v in (0, 1)]
    assert len({view.tobytes() for view in views}) == len(views)


@pytest.mark.parametrize("noise", [(0.0, 0.0), (0.05, 0.05)])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_to_may_lie_anyhow_in_memory(backend: str, noise: tuple[float, float], size: int) -> None:
    config = BUSY.model_copy(update={"noise_std": noise})
    for pixels, index in itertools.product(images(), range(12)):
        expected = made(maker(backend, config), pixels, index, size)
        planes = np.zeros((2, 3, size, size), np.uint8).transpose(0, 2, 3, 1)
        within = np.zeros((size, 2, size + 6, 5), np.uint8).transpose(1, 0, 2, 3)[:, :, 3 : size + 3, 1:4]
        backwards = np.zeros((2, size, size, 3), np.uint8)[:, ::-1, ::-1, ::-1]
        for out in (planes, within, backwards):
            maker(backend, config).make(pixels, 0, index, list(out))
            np.testing.assert_array_equal(out, expected)
        assert not within.base[:, :, :3].any()


def test_what_surrounds_the_crop_does_not_bleed_in(backend: str) -> None:
    augment = AugmentConfig(crop_scale=(0.05, 0.3), jitter=JitterConfig(p=0.0), gray_p=0.0, blur_p=0.0, solarize_p=0.0)
    for pixels, index in itertools.product(images(), range(20)):
        one = maker(backend, augment)
        p = draw_parameters(augment, pixels.shape[:2], 1, 0, index, 0)
        other = np.full_like(pixels, 255)
        inside = (slice(p.top, p.top + p.height), slice(p.left, p.left + p.width))
        other[inside] = pixels[inside]
        np.testing.assert_array_equal(made(one, pixels, index)[0], made(one, other, index)[0])


def test_crop_and_flip_are_all_that_is_done_where_the_device_does_the_rest(backend: str) -> None:
    off = {"gray_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0, "jitter": JitterConfig(p=0.0), "noise_std": (0.0, 0.0)}
    bare = AugmentConfig(**{**BUSY.model_dump(), **off})
    for pixels, index in itertools.product(images(), range(20)):
        cropped = made(maker(backend, photometrics=False), pixels, index)
        np.testing.assert_array_equal(cropped, made(maker(backend, bare), pixels, index))


def test_every_view_has_its_own_size_and_settings(backend: str) -> None:
    crops = (
        CropsConfig(count=2, gray_p=1.0),
        CropsConfig(count=2, size=16, flip_p=1.0, gray_p=0.0, crop_scale=(0.05, 0.3)),
    )
    data = DataConfig(image_size=24, views=crops, augment_backend=backend)
    pixels = images()[0]
    views = [np.zeros((kind.size, kind.size, 3), np.uint8) for kind in view_kinds(data)]
    ViewMaker(data, 4, 1).make(pixels, 2, 3, views)
    assert [view.shape[0] for view in views] == [24, 24, 16, 16]
    assert [bool((view == view[..., :1]).all()) for view in views] == [True, True, False, False]
    assert len({view.tobytes() for view in views}) == 4


def test_the_number_of_views_must_fit(backend: str) -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        made(maker(backend), images()[0], 0, views=3)


def test_time_is_told_by_part(backend: str) -> None:
    """With a clock that goes on by one at every look."""
    ticks = itertools.count()
    one = maker(backend, AugmentConfig(blur_p=(1.0, 0.0), jitter=JitterConfig(p=1.0)), clock=lambda: float(next(ticks)))
    made(one, images()[0], 0)
    assert set(one.seconds) == set(PARTS)
    assert one.seconds == {"crop": 2.0, "jitter": 2.0, "blur": 1.0, "other": 4.0}
    assert sum(one.seconds.values()) == next(ticks) - 1
    quiet = maker(backend)
    made(quiet, images()[0], 0)
    assert set(quiet.seconds.values()) == {0.0}


def test_the_views_of_pil_are_its_operations_applied(backend: str) -> None:
    """And those of the fast backend are near, so that both draw the same."""
    for mode, index in itertools.product(("RGB", "L"), range(20)):
        views = views_of(photo(mode), AugmentConfig(), 20, 2, 1, 2, index, backend)
        for view in (0, 1):
            p = draw_parameters(AugmentConfig(), (40, 52), 1, 2, index, view)
            expected = np.asarray(apply(photo(mode), p, 20).convert("RGB"))
            difference = np.abs(views[view].astype(int) - expected)
            assert difference.mean() < (1.5 if backend == "fast" else 1e-9)


def test_without_augmentation_a_view_is_the_resized_image(backend: str) -> None:
    off = {"crop_p": 0.0, "flip_p": 0.0, "gray_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0, "jitter": JitterConfig(p=0.0)}
    views = views_of(photo(), AugmentConfig(**off), 32, 2, 1, 0, 0, backend)
    whole = np.asarray(apply(photo(), ViewParameters(0, 0, 40, 52), 32))
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0].astype(int) - whole).max() <= (2 if backend == "fast" else 0)
