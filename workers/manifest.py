"""The manifest of a snapshot: which files it is made of, and their sizes and digests. No torch here.

What it says is checked before anything is read: a manifest comes from a disk that others may have written to.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError

MANIFEST = "manifest.json"
MAX_BYTES = 16 * 1024 * 1024
_CHUNK = 1 << 20


@dataclass(frozen=True)
class StageFile:
    """One stage's part.

    Args:
        file: name of the file, in the manifest's own folder.
        bytes: its size.
        sha256: of its contents.
        counters: what of the stage's state is not a tensor.
    """

    file: str
    bytes: int
    sha256: str
    counters: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """A complete snapshot after `steps` steps; `stages` are those that have learned by then."""

    steps: int
    stages: dict[int, StageFile]

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"format": 1, "steps": self.steps, "stages": {str(k): asdict(part) for k, part in self.stages.items()}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    file: str = Field(pattern=r"^stage_\d{1,6}\.safetensors$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    counters: dict[str, Any]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: int = Field(ge=1, le=1)
    steps: int = Field(ge=1)
    stages: dict[str, _Part] = Field(min_length=1)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, without looking at the files it names.

    Raises:
        UserError: there is none, or it is not one: no path in it may leave its folder.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"'{path}' is no manifest: it is larger than {MAX_BYTES} bytes")
        form = _Form.model_validate_json(path.read_bytes())
        stages = {int(index): StageFile(**part.model_dump()) for index, part in form.stages.items()}
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
    except (ValidationError, ValueError, RecursionError) as error:
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(f"'{path}' is no manifest ({' '.join(str(found).split())[:200]})") from None
    named = re.fullmatch(r"step_(\d+)", folder.name)
    if named is None or int(named[1]) != form.steps:
        raise UserError(f"'{path}' is the manifest of another snapshot, after {form.steps} steps")
    for index, part in stages.items():
        if part.file != f"stage_{index}.safetensors":
            raise UserError(f"'{path}' gives stage {index} the file '{part.file}'")
    return Manifest(form.steps, stages)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises `UserError` naming the first file that is not what the manifest says."""
    for part in manifest.stages.values():
        path = folder / part.file
        try:
            size = path.stat().st_size
            digest = _digest(path) if size == part.bytes else None
        except OSError as error:
            raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
        if digest is None:
            raise UserError(f"'{path}' has {size} bytes, and the manifest says {part.bytes}")
        if digest != part.sha256:
            raise UserError(f"'{path}' is damaged: its digest is not the manifest's")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
