"""What `init_from` can name: a run, a snapshot, a file; its kind and its digest. Does not import torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read
from workers.run.files import RunDir, step_numbers
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest

Kind = Literal["run", "snapshot", "safetensors", "pickled"]
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""How a file of `torch.save` begins: an archive, or, before PyTorch 1.6, pickles one after the other."""
IN_FOLDER = "model.safetensors"
"""The weights in a folder that `onward export`, timm or transformers wrote."""
ACCEPTED = "Give a run (RUN), a snapshot (RUN@STEPS), a safetensors file, or a .pth that torch.save wrote"


@dataclass(frozen=True)
class Source:
    """Where weights are.

    Args:
        name: as it was given.
        kind: what it is.
        path: of the file, or of the run directory.
        steps: of the snapshot; 0 for anything else.
    """

    name: str
    kind: Kind
    path: Path
    steps: int = 0

    @classmethod
    def of(cls, name: str) -> Source:
        """What the path `name` leads to; raises `UserError` if it is nothing that weights can be read from."""
        path = Path(name)
        if not path.exists() and (split := re.fullmatch(r"(.+)@(\d{1,18})", name, re.ASCII)):
            path, steps = Path(split[1]), int(split[2])
            return cls(name, "snapshot", _run(path), _checked_steps(path, steps))
        if not path.exists():
            raise UserError(f"'{name}' does not exist. {ACCEPTED}")
        if path.is_dir() and not RunDir(path).config.is_file() and (path / IN_FOLDER).is_file():
            path = path / IN_FOLDER
        if path.is_dir():
            return cls(name, "run", _trained(_run(path)))
        return cls(name, _kind_of(path), path)

    def digest(self) -> str:
        """SHA-256 of a file; of a run or a snapshot, of the names and digests of its stages' files."""
        if self.kind in ("safetensors", "pickled"):
            return _sha256(self.path)
        digest = hashlib.sha256()
        for path in self.stage_files().values():
            digest.update(f"{path.name} {_sha256(path, self.path)}\n".encode())
        return digest.hexdigest()

    def stage_files(self) -> dict[int, Path]:
        """The files of a run or a snapshot, by the stage; raises `UserError` if a snapshot is damaged."""
        run = RunDir(self.path)
        if self.kind == "run":
            return {index: run.stage(index) for index in _stages_in(run)}
        folder = run.snapshot(self.steps)
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        return {index: folder / part.file for index, part in sorted(manifest.stages.items())}


def _run(path: Path) -> Path:
    if not RunDir(path).config.is_file():
        raise UserError(f"'{path}' is a folder, and neither a run nor one with a {IN_FOLDER}. {ACCEPTED}")
    return path


def _stages_in(run: RunDir) -> list[int]:
    found = (re.fullmatch(r"stage_([1-9]\d{0,5})\.safetensors", path.name) for path in run.final.glob("stage_*"))
    return sorted(int(match[1]) for match in found if match)


def _complete(run: RunDir) -> list[int]:
    return [steps for steps in step_numbers(run) if (run.snapshot(steps) / MANIFEST).is_file()]


def _trained(path: Path) -> Path:
    if not _stages_in(RunDir(path)):
        newest = _complete(RunDir(path))[-1:]
        remedy = f"Give its newest snapshot, {path}@{newest[0]}" if newest else "It has no snapshot either: train it"
        raise UserError(f"the run '{path}' has not been trained to its end. {remedy}")
    return path


def _checked_steps(path: Path, steps: int) -> int:
    complete = _complete(RunDir(path))
    if steps not in complete:
        have = f"It has those after {', '.join(map(str, complete))} steps" if complete else "It has none"
        raise UserError(f"'{path}' has no snapshot after {steps} steps. {have}")
    return steps


def _kind_of(path: Path) -> Kind:
    try:
        with open_to_read(path) as file:
            begin = file.read(9)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
    if begin[8:9] == b"{":
        return "safetensors"
    if begin.startswith((ZIP, PICKLE)):
        return "pickled"
    raise UserError(f"'{path}' is neither a safetensors file nor one of torch.save. {ACCEPTED}")


def _sha256(path: Path, root: Path | None = None) -> str:
    try:
        with open_to_read(path, root) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
