"""Reads `.npz` files whose arrays are known before: what their headers announce is compared before memory is taken.

A few bytes of a compressed file can stand for any amount of zeros, and a header of ninety bytes for 2^50 numbers.
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
"""What zipfile and numpy raise of a file that is damaged, encrypted, or none of theirs."""


@dataclass(frozen=True)
class Expected:
    """What an array must be.

    Args:
        dtype: its numbers; any byte order.
        most: numbers in it, at most.
        axes: how many.
    """

    dtype: type[np.generic]
    most: int
    axes: int = 1


def read_arrays(data: bytes, expected: Mapping[str, Expected]) -> dict[str, NDArray[np.generic]]:
    """The arrays of an `.npz` file; others in it are not looked at.

    Raises:
        Exceptions of `UNREADABLE`: it is none, lacks an array, or one is not what it must be.
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
            what = "fewer" if len(content) < size else "more"
            raise ValueError(f"'{name}' announces {size} bytes, and there are {what}")
    found = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return found.astype(wanted.dtype, casting="equiv", copy=False)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, order and type of an `.npy` file, which is then read up to its numbers; raises `ValueError`."""
    if (version := npy.read_magic(file)) != (1, 0):  # the others may have gigabytes of header, for thousands of fields
        raise ValueError(f"it is of version {version} of the format")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError("it holds no numbers")
    return shape, fortran, dtype
