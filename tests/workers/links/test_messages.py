"""Headers survive the trip as bytes, bad bytes are refused, and a spec knows what fits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.errors import TrainingError
from workers.links.messages import Header, TensorSpec


@pytest.mark.parametrize(
    "header",
    [
        Header(0, 0, ()),
        Header(2**40, 300, (0.25, 0.1, 1e-300, math.pi)),
        Header(5, 1, (0.0,), last=True),
        Header(5, 1, (0.0,), labels=b"\n" * 8, samples=b"\n" * 16, data_set="0f"),
        Header(5, 1, (0.0,), samples=b"\xff" * 8),
    ],
)
def test_a_header_survives_as_bytes(header: Header) -> None:
    assert Header.from_bytes(header.to_bytes()) == header


def test_numbers_and_labels_of_images_are_told_apart() -> None:
    labels, samples = np.array([3, 1, 2], "<i4"), np.array([7, 2**40, 0], "<i8")
    header = Header.from_bytes(Header(0, 0, (), labels=labels.tobytes(), samples=samples.tobytes()).to_bytes())
    assert header.sample_numbers.tolist() == [7, 2**40, 0]
    assert header.label_tensor is not None
    assert header.label_tensor.tolist() == [3, 1, 2]
    assert Header(0, 0, ()).sample_numbers.shape == (0,)
    assert Header(0, 0, ()).label_tensor is None


@pytest.mark.parametrize(("size", "rest"), [(4, 0), (-4, 8), (2, 8), (0, 7), (4, 8)])
def test_labels_and_numbers_that_do_not_add_up_are_refused(size: int, rest: int) -> None:
    line = Header(0, 0, ()).to_bytes().rstrip(b"\n").removesuffix(b"0]") + b"%d]\n" % size
    with pytest.raises(TrainingError, match="not a header"):
        Header.from_bytes(line + b"\0" * rest)


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1, 2]", b'["a", 0, [], false]', b"[1, 0, 3, false]", b"null"])
def test_bytes_that_are_no_header_are_refused(data: bytes) -> None:
    with pytest.raises(TrainingError, match="not a header"):
        Header.from_bytes(data)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, "-1"), (0, "-7"), (0, "4611686018427387904"), (1, "-1"), (1, "1e300"), (4, "0"), (4, "-2"), (2, "[NaN]"),
     (2, "[-0.5]"), (2, "[Infinity]"), (2, "[0.1, 1e400]")],
)  # fmt: skip
def test_numbers_that_no_run_has_are_refused(at: int, value: str) -> None:
    fields = ["3", "1", "[0.5]", "false", "2", "false", "false", '"x"', '""', '""', "0"]
    assert Header.from_bytes(f"[{', '.join(fields)}]\n".encode()).step == 3
    fields[at] = value
    with pytest.raises(TrainingError, match="not a header"):
        Header.from_bytes(f"[{', '.join(fields)}]\n".encode())


def test_a_spec_admits_what_is_as_large_or_smaller() -> None:
    spec = TensorSpec((4, 3, 2), torch.float32)
    assert spec.nbytes == 96
    assert str(spec) == "[4, 3, 2] float32"
    assert spec.admits((4, 3, 2), torch.float32)
    assert spec.admits((0, 3, 1), torch.float32)
    for shape in ((5, 3, 2), (4, 3), (4, 3, 2, 1), (4, 3, -1)):
        assert not spec.admits(shape, torch.float32)
    assert not spec.admits((4, 3, 2), torch.float64)
