"""Colours of whole batches are those that PIL makes of each image alone, from the same draws, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import AugmentConfig, DataConfig
from pipeline.config.data import CropsConfig
from pipeline.data.augment import batch_operations as batch
from pipeline.data.augment import device_photometrics as photometrics
from pipeline.data.augment.device_photometrics import Photometrics, photometrics_on_device
from pipeline.data.augment.keyed_draws import Purpose, keyed_normals
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import Blur, Jitter, ViewParameters, add_noise, apply
from pipeline.data.packing import pack, unpack
from tests.pipeline.data.samples import photo

SIZE, SEED, EPOCH = 40, 3, 5
CALM = Jitter(1.0, 1.0, 1.0, 0.0, (0, 1, 2, 3))
WHOLE = ViewParameters(0, 0, SIZE, SIZE)
Pixels = NDArray[np.uint8]
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


def pictures(count: int = 12, size: int = SIZE) -> Pixels:
    """`[count, size, size, 3]`: every other one smooth, colourful noise, the others rougher; one of them gray."""
    random = np.random.default_rng(1)
    found = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    whole = np.asarray(photo("RGB", 2 * size, 2 * size))
    for row in range(0, count, 2):
        top, left = random.integers(0, size, 2)
        found[row] = whole[top : top + size, left : left + size]
    found[-1] = found[-1, :, :, :1]
    return found


def colored(images: Pixels, parameters: list[ViewParameters]) -> Pixels:
    """All in one batch, as `Photometrics` does it with drawn parameters."""
    levels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    batch.run(photometrics._colors(parameters), levels)
    batch.blur(levels, [p.blur for p in parameters])
    batch.run([(batch.solarize, [i for i, p in enumerate(parameters) if p.solarize], [])], levels)
    return levels.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def by_pil(images: Pixels, parameters: list[ViewParameters]) -> Pixels:
    made = [
        apply(Image.fromarray(image), p, image.shape[0]).convert("RGB")
        for image, p in zip(images, parameters, strict=True)
    ]
    return np.stack([np.asarray(image) for image in made])


def assert_same_levels(found: Pixels, expected: Pixels, share: float = 0.0) -> None:
    """The same bits; but up to `share` of all values may be one level away."""
    distance = np.abs(found.astype(int) - expected)
    assert distance.max() <= (1 if share else 0)
    assert (distance > 0).mean() <= share


def draw(seed: int = 2) -> Callable[[float, float], float]:
    return np.random.default_rng(seed).uniform


OPERATIONS: dict[str, Callable[[Callable[[float, float], float]], ViewParameters]] = {
    "brightness": lambda u: replace(WHOLE, jitter=replace(CALM, brightness=u(0.2, 2.0))),
    "contrast": lambda u: replace(WHOLE, jitter=replace(CALM, contrast=u(0.2, 2.0))),
    "saturation": lambda u: replace(WHOLE, jitter=replace(CALM, saturation=u(0.0, 2.0))),
    "gray": lambda u: replace(WHOLE, gray=u(0, 1) < 0.5),
    "blur": lambda u: replace(WHOLE, blur=Blur(u(0.1, 5.0), None)),
    "blur by a kernel": lambda u: replace(WHOLE, blur=Blur(u(0.1, 5.0), u(0.05, 1.0))),
    "solarize": lambda u: replace(WHOLE, solarize=u(0, 1) < 0.5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_alone_gives_the_bits_of_pil(name: str) -> None:
    uniform = draw()
    parameters = [OPERATIONS[name](uniform) for _ in range(12)]
    expected = by_pil(pictures(), parameters)
    assert (expected != pictures()).any()
    # A kernel's sums come in another order than OpenCV's, which shows where they are halves.
    assert_same_levels(colored(pictures(), parameters), expected, share=1e-3 if "kernel" in name else 0.0)


def test_hue_is_that_of_pil_but_for_one_level_in_a_few_places() -> None:
    every = np.arange(2**24, dtype=np.uint32).reshape(-1, 1)[:: 2**24 // (12 * 200 * 200) + 1][: 11 * 200 * 200]
    images = np.concatenate([every & 255, (every >> 8) & 255, every >> 16], 1).astype(np.uint8).reshape(-1, 200, 200, 3)
    uniform = draw()
    parameters = [replace(WHOLE, width=200, height=200, jitter=replace(CALM, hue=uniform(-0.5, 0.5))) for _ in images]
    assert_same_levels(colored(images, parameters), by_pil(images, parameters), share=1e-4)


def test_a_factor_that_changes_nothing_is_left_out() -> None:
    parameters = [replace(WHOLE, jitter=replace(CALM, brightness=1.0 + i % 2)) for i in range(12)]
    np.testing.assert_array_equal(colored(pictures(), parameters)[::2], pictures()[::2])


DATA = DataConfig(image_size=SIZE, augment=AugmentConfig(blur_p=(0.5, 0.5), solarize_p=(0.3, 0.3), jitter={"hue": 0.3}))
SAMPLES = np.array([4, 1, 900_000, 17, 0, 2, 33, 5, 6, 12, 8, 3], np.int64)


def cropped(num_views: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.roll(pictures(), view, axis=0) for view in range(num_views)]))


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_applied_is_what_the_workers_draw(device: str) -> None:
    """After the crop of an image of any size, each view of each image as if PIL had gone on with it."""
    finish = Photometrics(DATA, 2, SEED)
    found = finish(cropped().to(device), EPOCH, SAMPLES).cpu().numpy()
    np.testing.assert_array_equal(finish(cropped().to(device), EPOCH, SAMPLES).cpu(), found)
    for view in range(2):
        drawn = [draw_parameters(DATA.augment, (375, 500), SEED, EPOCH, int(n), view) for n in SAMPLES]
        here = [replace(p, top=0, left=0, height=SIZE, width=SIZE, flip=False) for p in drawn]
        assert len({p.jitter.order for p in here if p.jitter}) > 3
        assert_same_levels(found[view], by_pil(cropped().numpy()[view], here), share=1e-3)


def test_an_image_depends_on_its_own_key_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    finish, together = Photometrics(DATA, 2, SEED), cropped()
    expected = finish(together, EPOCH, SAMPLES)
    np.testing.assert_array_equal(together, cropped())  # the input is not changed
    assert torch.equal(finish(together, EPOCH, SAMPLES), expected)
    order = np.random.default_rng(0).permutation(len(SAMPLES))
    assert torch.equal(finish(together[:, order], EPOCH, SAMPLES[order]), expected[:, order])
    for row in range(len(SAMPLES)):
        alone = finish(together[:, row : row + 1], EPOCH, SAMPLES[row : row + 1])
        assert torch.equal(alone, expected[:, row : row + 1])
    for chunk in (1, 3 * 4 * 3 * SIZE * SIZE):
        monkeypatch.setattr(photometrics, "CHUNK_BYTES", chunk)
        assert torch.equal(finish(together, EPOCH, SAMPLES), expected)
    for other in (Photometrics(DATA, 2, SEED + 1)(together, EPOCH, SAMPLES), finish(together, EPOCH + 1, SAMPLES)):
        assert not torch.equal(other, expected)


def test_no_more_than_a_chunk_is_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photometrics, "CHUNK_BYTES", 5 * 4 * 3 * SIZE * SIZE)
    sizes: list[int] = []
    monkeypatch.setattr(batch, "blur", lambda levels, blurs: sizes.append(len(levels)))
    Photometrics(DATA, 2, SEED)(cropped(), EPOCH, SAMPLES)
    assert sizes == [5, 5, 2, 5, 5, 2]


def test_the_negative_patch_stays_as_it_is() -> None:
    found = Photometrics(DATA, 3, SEED)(cropped(3), EPOCH, SAMPLES)
    assert torch.equal(found[2], cropped(3)[2])
    assert torch.equal(found[:2], Photometrics(DATA, 2, SEED)(cropped(3)[:2], EPOCH, SAMPLES))


def test_noise_is_that_of_the_workers_and_leaves_gray_images_gray() -> None:
    data = DataConfig(
        image_size=SIZE, augment=AugmentConfig(jitter={"p": 0}, gray_p=0, blur_p=0, solarize_p=0, noise_std=(0, 0.1))
    )
    found = Photometrics(data, 2, SEED)(cropped(), EPOCH, SAMPLES).numpy()
    np.testing.assert_array_equal(found[0], cropped()[0])
    for row, (number, pixels) in enumerate(zip(SAMPLES.tolist(), cropped()[1].numpy(), strict=True)):
        gray = bool((pixels == pixels[..., :1]).all())
        shape = (SIZE, SIZE) if gray else (3, SIZE, SIZE)
        normals = keyed_normals(SEED, Purpose.PIXEL_NOISE, (1, number, EPOCH), int(np.prod(shape))).reshape(shape)
        expected = np.broadcast_to(add_noise(pixels.transpose(2, 0, 1), 0.1 * normals), (3, SIZE, SIZE))
        np.testing.assert_array_equal(found[1, row], expected.transpose(1, 2, 0))
        assert bool((found[1, row] == found[1, row][..., :1]).all()) == gray


def test_each_view_has_the_settings_of_its_kind() -> None:
    plain = CropsConfig(jitter_p=0, gray_p=0, blur_p=0, solarize_p=0)
    data = DataConfig(image_size=SIZE, views=(plain, plain.model_copy(update={"gray_p": 1.0, "count": 2}), plain))
    found = Photometrics(data, 4, SEED)(cropped(4), EPOCH, SAMPLES)
    for view in (0, 3):
        assert torch.equal(found[view], cropped(4)[view])
    for view in (1, 2):
        np.testing.assert_array_equal(found[view], by_pil(cropped(4)[view].numpy(), [replace(WHOLE, gray=True)] * 12))


def test_views_of_several_sizes_are_finished_one_by_one() -> None:
    small = CropsConfig(size=24, count=1)
    data = DataConfig(image_size=SIZE, views=(CropsConfig(count=2), small), augment=DATA.augment)
    views = [*cropped(), torch.from_numpy(pictures(size=24))]
    found = unpack(
        Photometrics(data, 3, SEED)(pack(views, True), EPOCH, SAMPLES), [(40, 40, 3), (40, 40, 3), (24, 24, 3)]
    )
    np.testing.assert_array_equal(torch.stack(found[:2]), Photometrics(DATA, 2, SEED)(cropped(), EPOCH, SAMPLES))
    drawn = [draw_parameters(data.augment, (1, 1), SEED, EPOCH, int(n), 2) for n in SAMPLES]
    here = [replace(p, top=0, left=0, height=24, width=24, flip=False) for p in drawn]
    assert_same_levels(found[2].numpy(), by_pil(views[2].numpy(), here), share=1e-3)


def test_an_empty_batch_is_left_empty() -> None:
    assert Photometrics(DATA, 2, SEED)(cropped()[:, :0], EPOCH, SAMPLES[:0]).shape == (2, 0, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("views", "samples", "message"),
    [
        (cropped().float(), SAMPLES, "must be uint8"),
        (cropped().permute(0, 1, 4, 2, 3), SAMPLES, "must be uint8"),
        (cropped(3), SAMPLES, r"\[2, B, S, S, 3\]"),
        (cropped(), SAMPLES[:5], "5 numbers for 12 images"),
    ],
)
def test_what_does_not_fit_is_refused(views: torch.Tensor, samples: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Photometrics(DATA, 2, SEED)(views, EPOCH, samples)


def test_only_on_request_is_it_done_on_the_device() -> None:
    where = {place: photometrics_on_device(DataConfig(augment_on=place)) for place in ("auto", "workers", "device")}
    assert where == {"auto": False, "workers": False, "device": True}
