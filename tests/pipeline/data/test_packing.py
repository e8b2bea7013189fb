"""Views of several sizes as one tensor: nothing is lost, rows stay rows, and what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.data.packing import is_packed, pack, unpack
from pipeline.shapes import packed_shape
from workers.links.resharding import replica_rows

SHAPES: list[tuple[int, ...]] = [(3, 4, 4), (3, 4, 4), (3, 2, 2), (3, 1, 5)]
DTYPES = [torch.uint8, torch.float32, torch.bfloat16, torch.float64]


def views(shapes: list[tuple[int, ...]], rows: int = 6, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    source = torch.Generator().manual_seed(len(shapes))
    return [torch.randint(0, 200, (rows, *shape), generator=source).to(dtype) for shape in shapes]


def all_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=3).map(tuple), min_size=1, max_size=5),
    rows=st.integers(0, 4),
)
def test_what_is_packed_comes_back(shapes: list[tuple[int, ...]], rows: int) -> None:
    given_views = views(shapes, rows)
    packed = pack(given_views, packed=True)
    assert tuple(packed.shape) == packed_shape(shapes, rows, packed=True)
    assert all_equal(unpack(packed, shapes), given_views)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_stays_and_everything_is_contiguous(dtype: torch.dtype) -> None:
    for shapes, several in ((SHAPES, True), (SHAPES[:2], False)):
        given_views = [view.transpose(-1, -2).contiguous().transpose(-1, -2) for view in views(shapes, dtype=dtype)]
        packed = pack(given_views, several)
        assert (packed.dtype, packed.is_contiguous(), is_packed(packed)) == (dtype, True, several)
        back = unpack(packed, shapes)
        assert all_equal(back, given_views)
        assert all(view.is_contiguous() for view in back)


@pytest.mark.parametrize("packed", [True, False])
def test_a_layout_of_channels_last_does_not_travel(packed: bool) -> None:
    given_views = [view.contiguous(memory_format=torch.channels_last) for view in views(SHAPES[:2])]
    tensor = pack(given_views, packed)
    assert tensor.is_contiguous()
    assert all_equal(unpack(tensor, SHAPES[:2]), given_views)


def test_views_of_one_size_are_stacked_and_taken_apart_without_a_copy() -> None:
    stacked = pack(views(SHAPES[:2]), packed=False)
    assert tuple(stacked.shape) == (2, 6, 3, 4, 4) == packed_shape(SHAPES[:2], 6, packed=False)
    assert [view.data_ptr() for view in unpack(stacked, ())] == [view.data_ptr() for view in stacked]


def test_a_row_holds_one_image_view_after_view() -> None:
    given_views = views(SHAPES)
    packed = pack(given_views, packed=True)
    assert packed[0, 3].tolist() == [value for view in given_views for value in view[3].flatten().tolist()]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_slicing_rows_slices_every_view(replicas: int) -> None:
    whole = views(SHAPES)
    packed = pack(whole, packed=True)
    parts = [unpack(packed[:, replica_rows(number, replicas, 6)], SHAPES) for number in range(replicas)]
    assert all_equal([torch.cat(rows) for rows in zip(*parts, strict=True)], whole)
    rejoined = torch.cat([packed[:, replica_rows(number, replicas, 6)] for number in range(replicas)], dim=1)
    assert torch.equal(rejoined, packed)


@pytest.mark.parametrize("shapes", [SHAPES[:3], [*SHAPES, (1, 1)], [(3, 4, 4), (3, 4, 4), (3, 2, 2), (3, 1, 4)]])
def test_other_views_than_there_are_is_an_error(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"a packed batch \[1, 6, 123\] does not hold views \[3, 4, 4\], "):
        unpack(pack(views(SHAPES), packed=True), shapes)
