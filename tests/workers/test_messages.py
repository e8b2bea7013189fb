"""Headers survive the trip as bytes, bad bytes are refused, and a spec knows what fits."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.errors import TrainingError
from workers.messages import Header, TensorSpec


@pytest.mark.parametrize(
    "header",
    [Header(0, 0, ()), Header(2**40, 300, (0.25, 0.1, 1e-300, math.pi)), Header(5, 1, (0.0,), last=True)],
)
def test_a_header_survives_as_bytes(header: Header) -> None:
    assert Header.from_bytes(header.to_bytes()) == header


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1, 2]", b'["a", 0, [], false]', b"[1, 0, 3, false]", b"null"])
def test_bytes_that_are_no_header_are_refused(data: bytes) -> None:
    with pytest.raises(TrainingError, match="not a header"):
        Header.from_bytes(data)


def test_a_spec_admits_what_is_as_large_or_smaller() -> None:
    spec = TensorSpec((4, 3, 2), torch.float32)
    assert spec.nbytes == 96
    assert str(spec) == "[4, 3, 2] float32"
    assert spec.admits((4, 3, 2), torch.float32)
    assert spec.admits((0, 3, 1), torch.float32)
    for shape in ((5, 3, 2), (4, 3), (4, 3, 2, 1), (4, 3, -1)):
        assert not spec.admits(shape, torch.float32)
    assert not spec.admits((4, 3, 2), torch.float64)
