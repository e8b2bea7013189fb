"""Reading and writing tensors as safetensors files, which cannot run code when they are read.

The bytes of a file are a function of its tensors, so bit-identical runs have equal digests.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.ordinary_files import make_folder, name_of, open_to_read
from pipeline.stage.state import Facts
from workers.run.files import write_parts

NAMES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64",
    torch.float32: "F32", torch.uint32: "U32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of the dtypes in the format, in the order in which tensors of each dtype stand in a file."""
_TYPES = {name: dtype for dtype, name in NAMES.items()}
PIECE_BYTES = 1 << 24


@contextmanager
def open_tensors(path: Path, root: Path) -> Iterator[Any]:
    """`safe_open` for a file of a run; the file must be an ordinary one, reached without symbolic links.

    Args:
        path: of the file.
        root: the run directory.

    Raises:
        OSError, SafetensorError: the file cannot be read, or is not in the format.
    """
    with open_to_read(path, root) as file, tensors_in(file, path) as found:
        yield found


def tensors_in(file: BinaryIO, path: Path) -> Any:
    """`safe_open` for an open file; `path` is its own if the system knows no other. Raises as `open_tensors`."""
    return safe_open(name_of(file, path), framework="pt")


def facts_of(found: Any) -> dict[str, Facts]:
    """Shape and dtype of every tensor, from the header of an opened file."""
    slices = {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118  # it is no dict
    return {name: Facts(tuple(part.get_shape()), _TYPES.get(str(part.get_dtype()))) for name, part in slices.items()}


def read_tensors(path: Path, root: Path) -> dict[str, Tensor]:
    """All tensors of a file of a run. Raises as `open_tensors`."""
    with open_tensors(path, root) as found:
        return tensors_of(found)


def tensors_of(found: Any) -> dict[str, Tensor]:
    """All tensors of an opened file; they stay when it is closed."""
    return {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118  # it is no dict


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, root: Path | None = None
) -> str:
    """Write `tensors` atomically, with the same bytes as the safetensors library but in pieces, to save memory.

    Args:
        path: of the file.
        tensors: of any dtype in `NAMES`, on any device.
        metadata: text entries for the header.
        root: the run directory, where the file lies in one; its folder is created and may not be a symbolic link.

    Returns:
        SHA-256 of the file.
    """
    if root is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        make_folder(path.parent, root)
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes | memoryview]:
        for piece in serialized(tensors, metadata):
            digest.update(piece)
            yield piece

    write_parts(path, pieces(), root)
    return digest.hexdigest()


def serialized(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The file in pieces: length of the header, header, then the tensors ordered by dtype and name."""
    order = _order(tensors)
    yield _header(tensors, order, metadata)
    for name in order:
        data = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
        for start in range(0, len(data), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES].numpy().data


def serialized_bytes(tensors: dict[str, Tensor]) -> int:
    """Size of the file."""
    content = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return len(_header(tensors, _order(tensors), None)) + content


def _order(tensors: dict[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (list(NAMES).index(tensors[name].dtype), name))


def _header(tensors: dict[str, Tensor], order: list[str], metadata: dict[str, str] | None) -> bytes:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
