"""Reads `.npz` files with an expected content: headers are checked before memory is allocated.

A few compressed bytes can unpack to any amount of zeros, and a header of ninety bytes can announce 2^50 numbers.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data.sets.memory import available_bytes

UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile)
"""What zipfile and numpy raise for a file that is damaged, encrypted, or of another format."""


@dataclass(frozen=True)
class Expected:
    """Requirements on one array.

    Args:
        dtype: of its numbers; any byte order.
        most: largest number of elements.
        axes: number of axes.
    """

    dtype: type[np.generic]
    most: int
    axes: int = 1


def read_arrays(data: bytes, expected: Mapping[str, Expected]) -> dict[str, NDArray[np.generic]]:
    """The expected arrays of an `.npz` file; others in it are not read.

    Raises:
        Exceptions of `UNREADABLE`: the file is no `.npz` file, lacks an array, or an array is not as expected.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: _read(archive, name, wanted) for name, wanted in expected.items()}


def _read(archive: zipfile.ZipFile, name: str, wanted: Expected) -> NDArray[np.generic]:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        shape, fortran, dtype = read_header(file)  # type: ignore[arg-type]
        if not np.can_cast(dtype, wanted.dtype, "equiv"):
            raise ValueError(f"'{name}' holds {dtype}, and should hold {np.dtype(wanted.dtype)}")
        if len(shape) != wanted.axes or prod(shape) > wanted.most:
            raise ValueError(f"'{name}' announces {list(shape)} numbers, and {wanted.most} may be there")
        size = prod(shape) * dtype.itemsize
        if (room := available_bytes()) is not None and size > room:
            raise ValueError(f"'{name}' announces {size} bytes, and {room} bytes of memory are available")
        content = file.read(size)
        if len(content) != size or file.read(1):
            amount = "fewer" if len(content) < size else "more"
            raise ValueError(f"'{name}' announces {size} bytes, and there are {amount}")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(wanted.dtype, casting="equiv", copy=False)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, order and type of an `.npy` file; leaves the file at the first number; raises `ValueError`."""
    if (version := npy.read_magic(file)) != (1, 0):  # other versions may have gigabytes of header
        raise ValueError(f"it is of version {version} of the format")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError("it holds no numbers")
    return shape, fortran, dtype
