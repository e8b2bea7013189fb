"""What a codec does to activations: how far it moves them, what stays visible, and that a batch may be divided."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.serial import build_stages, serial_step
from pipeline.stage.codecs import build_codec, round_trip
from pipeline.stage.stage import Stage
from tests.pipeline.small import same, small_config, state, views

CODECS = ("bf16", "fp16", "int8")
SHAPES = [(2, 6, 5, 4, 3), (2, 6, 7, 5)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
inf, nan = float("inf"), float("nan")


def activations(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", SHAPES, ids=["map", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_written_has_the_stated_shape_and_comes_back_nearly_as_it_was(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = activations(shape, dtype)
    codec = build_codec(name, shape, dtype)
    written = codec.encode(x)
    assert (tuple(written.shape), written.dtype) == (codec.wire_shape, codec.wire_dtype)
    assert written.is_contiguous()
    y = codec.decode(written)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert y.is_contiguous()
    assert y.data_ptr() != written.data_ptr()
    over = (3, 4) if len(shape) == 5 else (2,)
    step = x.float().abs().amax(over, keepdim=True) / 127
    coarse = {"bf16": 2**-8 * x.float().abs(), "fp16": 2**-11 * x.float().abs() + 2**-24, "int8": step / 2}[name]
    rounding = torch.finfo(dtype).eps * x.float().abs()  # of the result to the link's own dtype
    assert bool(((y.float() - x.float()).abs() <= coarse * 1.001 + rounding).all())
    assert torch.equal(y, round_trip(name, x))
    if (name, dtype) not in {("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp16", torch.bfloat16)}:
        assert not torch.equal(y, x)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", SHAPES, ids=["map", "tokens"])
def test_how_a_batch_is_divided_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    x = activations(shape)
    x[1, 3] *= 100
    whole = round_trip(name, x)
    for pieces in (2, 3, 6):
        assert torch.equal(torch.cat([round_trip(name, rows) for rows in x.chunk(pieces, dim=1)], dim=1), whole)
    assert torch.equal(torch.stack([round_trip(name, view[None])[0] for view in x]), whole)


def test_int8_by_hand() -> None:
    x = torch.zeros(1, 1, 2, 1, 3)
    x[0, 0, 0, 0] = torch.tensor([-254.0, 3.0, 5.0])  # a step is 2: halves go to the even level
    codec = build_codec("int8", tuple(x.shape), x.dtype)
    written = codec.encode(x)
    assert written[0, 0, 0].tolist()[:3] == [-127, 2, 2]
    assert written[0, 0, 0, 3:].clone().view(torch.float32).item() == 2.0
    assert written[0, 0, 1].tolist() == [0] * 7
    assert codec.decode(written).flatten().tolist() == [-254.0, 4.0, 4.0, 0.0, 0.0, 0.0]
    tokens = x.transpose(2, 4).reshape(1, 1, 3, 2)
    assert torch.equal(round_trip("int8", tokens), codec.decode(written).transpose(2, 4).reshape(1, 1, 3, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("smallest", [True, False])
def test_int8_at_the_ends_of_the_range(dtype: torch.dtype, smallest: bool) -> None:
    edge = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps if smallest else torch.finfo(dtype).max
    x = torch.tensor([edge, -edge, 0.0]).to(dtype).view(1, 1, 1, 1, 3)
    y = round_trip("int8", x)
    assert bool(y.isfinite().all())
    assert y[0, 0, 0, 0, 2] == 0
    assert bool((y.float().abs() <= 1.004 * x.float().abs()).all())


def test_what_is_too_large_for_a_format_becomes_its_largest_number() -> None:
    x = torch.tensor([1e6, -1e6, 65504.0, 65519.0, 3.4e38, -3.4e38]).view(1, 1, 1, 1, -1)
    assert round_trip("fp16", x).flatten().tolist() == [65504, -65504, 65504, 65504, 65504, -65504]
    y = round_trip("bf16", x).flatten()
    assert y[-2:].tolist() == [torch.finfo(torch.bfloat16).max, -torch.finfo(torch.bfloat16).max]
    assert round_trip("fp16", torch.full((1, 1, 1, 1, 1), 3e38, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize("shape", SHAPES, ids=["map", "tokens"])
@pytest.mark.parametrize("bad", [inf, -inf, nan], ids=str)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_stays_visible(name: str, bad: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = activations(shape, dtype)
    healthy = round_trip(name, x)
    where = (1, 2, 1, 1, 1) if len(shape) == 5 else (1, 2, 1, 1)
    x[where] = bad
    y = round_trip(name, x)
    channel = (1, 2, 1) if len(shape) == 5 else (1, 2, slice(None), 1)
    if name == "int8":
        assert bool(y[channel].isnan().all())
    else:
        torch.testing.assert_close(y[where], x[where], equal_nan=True)
    rest = torch.ones_like(y, dtype=torch.bool)
    rest[channel] = False
    assert torch.equal(y[rest], healthy[rest])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    ("largest", "shape"),
    [
        ((2, 6, 5, 4, 4), (2, 6, 5, 3, 3)),
        ((2, 6, 5, 4, 4), (1, 2, 3, 1, 1)),
        ((2, 6, 5, 4, 3), (2, 6, 5, 4, 3)),
        ((2, 6, 5, 4, 3), (2, 6, 5, 2, 2)),
        ((2, 6, 7, 5), (1, 2, 4, 3)),
    ],
    ids=str,
)
def test_what_is_smaller_comes_back_as_from_a_codec_of_its_own(
    name: str, largest: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    codec, x = build_codec(name, largest, torch.float32), activations(shape)
    assert codec.restores(shape)
    written = codec.encode(x)
    assert all(size <= limit for size, limit in zip(written.shape, codec.wire_shape, strict=True))
    y = codec.decode(written)
    assert y.is_contiguous()
    assert torch.equal(y, round_trip(name, x))


def test_int8_says_which_maps_it_could_not_restore() -> None:
    codec = build_codec("int8", (2, 6, 5, 4, 4), torch.float32)
    shapes = [(height, width) for height in range(1, 5) for width in range(1, 5)]
    assert [s for s in shapes if codec.restores((2, 6, 5, *s))] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert not build_codec("int8", (2, 6, 5, 4, 1), torch.float32).restores((2, 6, 5, 2, 2))
    assert build_codec("bf16", (2, 6, 5, 4, 4), torch.float32).restores((2, 6, 5, 2, 3))


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_of_nothing_passes(name: str) -> None:
    assert round_trip(name, torch.zeros(2, 0, 3, 4, 4)).shape == (2, 0, 3, 4, 4)


def test_images_and_none_are_left_alone() -> None:
    images, x = views(0), activations(SHAPES[0])
    assert all(round_trip(name, images) is images for name in CODECS)
    assert round_trip("none", x) is x


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"link\.codec: got 'int9'\. Did you mean 'int8'\? Allowed: none, bf16"):
        build_codec("int9", SHAPES[0], torch.float32)


def _trained(codec: str, steps: int = 2) -> list[Stage]:
    stages = build_stages(small_config(), 4)
    for step in range(steps):
        list(serial_step(stages, views(step), step, [0.0] * len(stages), codec=codec))
    return stages


@pytest.mark.parametrize("name", CODECS)
def test_a_serial_step_takes_the_round_trip_between_stages_and_nowhere_else(name: str) -> None:
    by_hand = build_stages(small_config(), 4)
    for step in range(2):
        x = views(step)
        for stage in by_hand:
            written = stage(x, step, 0.0)
            codec = build_codec(name, tuple(written.shape), written.dtype)
            x = codec.decode(codec.encode(written))
            stage.update(step)
    plain, coded = _trained("none"), _trained(name)
    assert all(same(state(one), state(other)) for one, other in zip(by_hand, coded, strict=True))
    assert same(state(plain[0]), state(coded[0]))  # images travel as they are
    assert not same(state(plain[1]), state(coded[1]))
