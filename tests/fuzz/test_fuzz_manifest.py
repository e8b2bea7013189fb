"""Whatever lies in a snapshot's folder, reading its manifest ends soon: with names of files in it, or a refusal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from pipeline.errors import UserError
from tests.fuzz.fuzzing import EDITS, JSON, attempt, edited, fuzzed, with_one_changed
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile, check_files, read_manifest

pytestmark = pytest.mark.slow

COUNTERS = {"skipped_in_a_row": 0, "scaler": {"scale": 65536.0, "_growth_tracker": 3}}
GOOD = Manifest(8, {n: StageFile(f"stage_{n}.safetensors", 88, "0" * 64, COUNTERS) for n in (1, 2)}).to_json()
TENSORS = save({"weight": np.arange(6, dtype=np.float32), "count": np.zeros((), dtype=np.int64)})
HEADER = {"weight": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "step_8"
    path.mkdir()
    return path


def read_or_refused(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    manifest, refusal = attempt(lambda: read_manifest(folder), UserError)
    if refusal is not None:
        assert refusal.isprintable()
        assert len(refusal) < 600
        return
    assert manifest.steps == 8
    for index, part in manifest.stages.items():
        assert (folder / part.file).parent == folder
        assert part.file == f"stage_{index}.safetensors"
        assert 0 <= part.bytes < 2**63
        json.dumps(part.counters, allow_nan=False)
    with pytest.raises(UserError):  # there are no such files
        check_files(folder, manifest)


def test_the_valid_one_is_read(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps(GOOD))
    assert read_manifest(folder).to_json() == GOOD


@given(data=st.binary(max_size=200))
@fuzzed
def test_any_bytes(data: bytes, folder: Path) -> None:
    read_or_refused(folder, data)


@given(edits=EDITS)
@fuzzed
def test_any_accident_to_a_manifest(edits: list[tuple[float, str, bytes]], folder: Path) -> None:
    read_or_refused(folder, edited(json.dumps(GOOD).encode(), edits))


@given(value=with_one_changed(GOOD, JSON | st.sampled_from(["../x", "/etc/passwd", "stage_1.safetensors\0", "1"])))
@fuzzed
def test_any_value_at_one_place(value: Any, folder: Path) -> None:
    try:
        data = json.dumps(value).encode()
    except ValueError:  # an integer that Python does not write
        return
    read_or_refused(folder, data)


def tensors_or_refused(folder: Path, data: bytes) -> None:
    """The digest is right, so that only what is in the file can be wrong."""
    path = folder / "stage_1.safetensors"
    path.write_bytes(data)
    part = StageFile(path.name, len(data), hashlib.sha256(data).hexdigest(), COUNTERS)
    _, refusal = attempt(lambda: check_files(folder, Manifest(8, {1: part})), UserError)
    assert refusal is None or "holds no tensors that can be read" in refusal
    path.unlink()


@given(edits=EDITS)
@fuzzed
def test_any_accident_to_tensors(edits: list[tuple[float, str, bytes]], folder: Path) -> None:
    tensors_or_refused(folder, edited(TENSORS, edits))


@given(header=with_one_changed(HEADER, JSON), size=st.none() | st.integers(0, 2**64 - 1), body=st.integers(0, 64))
@fuzzed
def test_any_header_of_tensors(header: Any, size: int | None, body: int, folder: Path) -> None:
    try:
        text = json.dumps(header).encode()
    except ValueError:  # an integer that Python does not write
        return
    length = len(text) if size is None else size
    tensors_or_refused(folder, length.to_bytes(8, "little") + text + bytes(body))
