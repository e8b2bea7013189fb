"""The manifest of a snapshot: its files, with sizes and digests. Does not import torch.

A manifest is validated before any file that it names is read, because others may have written to the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from pipeline.errors import UserError
from pipeline.ordinary_files import name_of, open_to_read, read_whole
from workers.run.files import RunDir, write_json
from workers.snapshots.bits import BITS

MANIFEST = "manifest.json"
MAX_BYTES = 16 * 1024 * 1024
MAX_STAGES = 100_000


def _check_counters(value: Any, depth: int = 0) -> Any:
    """Accept only small nested structures of finite numbers and short texts."""
    if isinstance(value, dict) and depth < 4 and len(value) <= 1000:
        return {key[:200]: _check_counters(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list) and depth < 4 and len(value) <= 1000:
        return [_check_counters(item, depth + 1) for item in value]
    small = isinstance(value, int | float) and abs(value) < 2**53  # neither infinite nor NaN
    if not (value is None or small or (isinstance(value, str) and len(value) <= 1000)):
        raise ValueError("a counter is neither a finite number, a short text nor a small group of them")
    return value


@dataclass(frozen=True)
class StageFile:
    """The part of one stage.

    Args:
        file: name of the file, in the folder of the manifest.
        bytes: size of the file.
        sha256: digest of the file.
        counters: the state of the stage that is not in tensors.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    file: Annotated[str, Field(pattern=r"^stage_[1-9][0-9]{0,5}\.safetensors$")]
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    counters: Annotated[dict[str, Any], AfterValidator(_check_counters)]


@dataclass(frozen=True)
class Manifest:
    """A complete snapshot after `steps` steps.

    Args:
        steps: of the run.
        stages: those that have been updated by then.
        bits: the version of the bits that it was computed in, see `workers.snapshots.bits`.
    """

    steps: int
    stages: dict[int, StageFile]
    bits: int = BITS

    def to_json(self) -> dict[str, Any]:
        """As it is written to the file."""
        stages = {str(k): asdict(part) for k, part in self.stages.items()}
        return {"format": 1, "bits": self.bits, "steps": self.steps, "stages": stages}


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: int = Field(ge=1, le=1)
    bits: int = Field(default=1, ge=1, lt=2**31)  # missing in what earlier versions wrote
    steps: int = Field(ge=1, lt=2**63)
    stages: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")], StageFile] = Field(
        min_length=1, max_length=MAX_STAGES
    )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder`, without checking the files that it names.

    Raises:
        UserError: it is missing or invalid. Neither a path in it nor a symbolic link may lead out of its folder.
    """
    path = folder / MANIFEST
    try:
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            raise UserError(f"'{folder}' is a symbolic link, and a snapshot is a folder of its run")
        if _size(path) > MAX_BYTES:
            raise UserError(f"'{path}' is no manifest: it is larger than {MAX_BYTES} bytes")
        data = read_whole(path, MAX_BYTES, _run_of(folder))
        json.loads(data, object_pairs_hook=_without_twins)
        form = _Form.model_validate_json(data)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        found = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(f"'{path}' is no manifest ({' '.join(str(found).split())[:200]})") from None
    if folder.name != f"step_{form.steps}":
        raise UserError(f"'{path}' is the manifest of another snapshot, after {form.steps} steps")
    for index, part in form.stages.items():
        if part.file != f"stage_{index}.safetensors":
            raise UserError(f"'{path}' gives stage {index} the file '{part.file}'")
    return Manifest(form.steps, {int(index): part for index, part in form.stages.items()}, form.bits)


def _run_of(folder: Path) -> Path:
    """The run directory of a snapshot; no symbolic links are followed below it."""
    return folder.parent.parent


def _without_twins(pairs: list[tuple[str, Any]]) -> None:
    """Refuse duplicate keys, of which readers may take different values."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")


def _size(path: Path) -> int:
    """Size of an ordinary file; raises `UserError` for anything else, such as a symbolic link or a pipe."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"'{path}' is not an ordinary file")
    return status.st_size


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises `UserError`, which names the first file that differs from the manifest or is not in the tensor format."""
    for part in manifest.stages.values():
        path = folder / part.file
        try:
            size = _size(path)
            if size != part.bytes:
                raise UserError(f"'{path}' has {size} bytes, and the manifest says {part.bytes}")
            with open_to_read(path, _run_of(folder)) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                    raise UserError(f"'{path}' is damaged: its digest is not the manifest's")
                with safe_open(name_of(file, path), framework="numpy"):
                    pass
        except SafetensorError as error:
            raise UserError(f"'{path}' holds no tensors that can be read ({error})") from None
        except OSError as error:
            raise UserError(f"'{path}' cannot be read ({error.strerror or error})") from None


def write_initial_manifest(run: RunDir, files: dict[int, StageFile]) -> None:
    """Write what makes the weights that a run begins with whole: their files by stage; raises `OSError`."""
    stages = {str(index): asdict(file) for index, file in sorted(files.items())}
    write_json(run.initial / MANIFEST, {"format": 1, "stages": stages}, run.path)


class _InitialForm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: int = Field(ge=1, le=1)
    stages: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")], StageFile] = Field(max_length=MAX_STAGES)


def read_initial_file(run: RunDir, stage: int) -> StageFile:
    """The file with the weights that a stage begins with, whose source is in `counters`.

    Raises:
        UserError: it is missing, or not the one that was written.
    """
    path = run.initial / MANIFEST
    try:
        form = _InitialForm.model_validate_json(read_whole(path, MAX_BYTES, run.path))
        part = form.stages[str(stage)]
        path = run.initial / f"stage_{stage}.safetensors"
        with open_to_read(path, run.path) as file:
            if part.file != path.name or hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                raise ValueError
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror or error}): {_ANEW}") from None
    except (ValueError, KeyError, RecursionError):
        raise UserError(f"'{path}' is damaged: {_ANEW}") from None
    return part


_ANEW = "it has the weights that the run begins with. Begin it anew in another run_dir=FOLDER"
