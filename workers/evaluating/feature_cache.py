"""Features kept on disk: one folder for everything that they depend on, one safetensors file per place.

Nothing in the folder is trusted. A file is used if `features.json` lists it, its size, digest and shape match, and all
its numbers are finite; any other is computed again, with a note to the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read, read_whole
from pipeline.stage.stage import Stage
from workers.evaluating.finite_features import is_finite
from workers.run.files import write_json
from workers.run.tensor_files import open_tensors

FORMAT = "onward-features-1"
INDEX = "features.json"
TENSOR = "features"
"""Name of the one tensor of a file."""
MAX_INDEX_BYTES = 1 << 20
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Written:
    """One file of features.

    Args:
        bytes: its size.
        sha256: of its contents.
        width: D of its `[N, D]`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    width: Annotated[int, Field(ge=1, lt=2**31)]


_FILES = TypeAdapter(dict[str, Written])


class Entry:
    """The features of one set of images, by one network.

    Args:
        root: folder of all entries.
        inputs: everything that the features depend on, as JSON has it; its digest names the folder.
        images: N.
        note: called with a sentence about each damaged file.
    """

    def __init__(self, root: Path, inputs: Mapping[str, Any], images: int, note: Callable[[str], None]) -> None:
        self.inputs, self.images, self._note = dict(inputs), images, note
        self.folder = root / hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:32]

    def path(self, place: Place) -> Path:
        """Where the features at `place` lie."""
        return self.folder / f"{place.key}.safetensors"

    def read(self, places: Iterable[Place]) -> dict[Place, Tensor]:
        """Those of `places` that are kept, float32 `[N, D]` mapped from the disk; damaged files are left out."""
        listed, features = self._index(self._note), {}
        for place in places:
            written = listed.get(place.key)
            if written is None:
                continue
            try:
                features[place] = read_features(self.path(place), written, self.images)
            except UserError as error:
                self._note(f"{error}. The features of {place} are made again")
        return features

    def add(self, files: Mapping[Place, Written]) -> None:
        """List files that were just written, beside those that are there; raises `OSError`."""
        named = {key: asdict(written) for key, written in self._index(lambda problem: None).items()}
        named |= {place.key: asdict(written) for place, written in files.items()}
        document = {"format": FORMAT, "what": self.inputs, "images": self.images, "files": named}
        write_json(self.folder / INDEX, document, self.folder.parent)

    def _index(self, note: Callable[[str], None]) -> dict[str, Written]:
        path = self.folder / INDEX
        try:
            values = json.loads(read_whole(path, MAX_INDEX_BYTES, self.folder.parent))
            if not isinstance(values, dict) or {k: v for k, v in values.items() if k != "files"} != {
                "format": FORMAT, "what": json.loads(json.dumps(self.inputs)), "images": self.images,
            }:  # fmt: skip
                raise ValueError("it is of other features")
            return _FILES.validate_json(json.dumps(values["files"]))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, RecursionError) as error:
            reason = "its files are not listed as they should be" if isinstance(error, ValidationError) else error
            note(f"'{path}' cannot be used ({' '.join(str(reason).split())[:200]}). Its features are made again")
            return {}


def read_features(path: Path, written: Written, rows: int) -> Tensor:
    """Features from a file, float32 `[N, D]` mapped from the disk.

    Args:
        path: of the file.
        written: what it should be.
        rows: N.

    Raises:
        UserError: it is anything else, cannot be read, or holds a NaN or an infinity.
    """
    try:
        if (size := path.lstat().st_size) != written.bytes:
            raise UserError(f"'{path}' has {size} bytes and should have {written.bytes}")
        root = path.parent.parent
        with open_to_read(path, root) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != written.sha256:
            raise UserError(f"'{path}' is damaged: its digest is another")
        with open_tensors(path, root) as tensors:
            features: Tensor | None = tensors.get_tensor(TENSOR) if TENSOR in tensors.keys() else None  # noqa: SIM118  # it is no dict
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{path}' cannot be read ({reason})") from None
    if features is None or features.dtype != torch.float32 or list(features.shape) != [rows, written.width]:
        raise UserError(f"'{path}' does not hold {rows} features of {written.width} numbers")
    if not is_finite(features):
        raise UserError(f"'{path}' holds NaN or infinity")
    return features


def network_digest(stages: Sequence[Stage]) -> str:
    """SHA-256 over names, shapes and values of all blocks and heads; parameters of the losses are left out."""
    digest = hashlib.sha256()
    for stage in stages:
        for name, tensor in sorted(stage.state_dict().items()):
            if not name.startswith(("block.", "head.")):
                continue
            digest.update(f"{stage.index} {name} {tensor.dtype} {list(tensor.shape)}\0".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            for start in range(0, raw.size, _CHUNK):
                digest.update(raw[start : start + _CHUNK].data)
    return digest.hexdigest()
