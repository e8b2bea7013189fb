"""The manifest of a snapshot: only what it names in its own folder counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from tests.sources import REPOSITORY, text_of
from workers.snapshots.bits import BITS, CHANGES
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile, read_manifest

PART = StageFile("stage_1.safetensors", 10, "0" * 64, {"skipped_in_a_row": 0})


def written(folder: Path, **changes: Any) -> Path:
    """The folder of a snapshot after four steps."""
    folder = folder / "step_4"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps({**Manifest(4, {1: PART}).to_json(), **changes}))
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path)) == Manifest(4, {1: PART}, BITS)
    assert read_manifest(written(tmp_path, bits=7)).bits == 7


def test_every_change_of_bits_is_in_the_changelog() -> None:
    table = text_of(REPOSITORY / "CHANGELOG.md").partition("## What changed bits")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert [int(row.split("|")[1]) for row in rows] == [*sorted(CHANGES, reverse=True), 1]
    assert all(
        change.what in row for (_, change), row in zip(sorted(CHANGES.items(), reverse=True), rows, strict=False)
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 8}, "is the manifest of another snapshot, after 8 steps"),
        (
            {"stages": {"2": vars(PART)}},
            "gives stage 2 the file 'stage_1.safetensors'",
        ),
        ({"stages": {"1": {**vars(PART), "file": "../stage_1.safetensors"}}}, "is no manifest .*should match pattern"),
        ({"stages": {}}, "is no manifest"),
        ({"format": 2}, "is no manifest"),
    ],
)
def test_a_manifest_of_anything_else_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    folder = written(tmp_path, **changes)
    with pytest.raises(UserError, match=why) as refused:
        read_manifest(folder)
    assert str(folder / MANIFEST) in str(refused.value)


def test_a_key_that_stands_twice_has_no_value(tmp_path: Path) -> None:
    folder = written(tmp_path)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"steps": 4', '"steps": 4, "steps": 4'))
    with pytest.raises(UserError, match=r"is no manifest \(a key occurs twice\)"):
        read_manifest(folder)


def test_a_folder_that_is_a_link_may_lead_anywhere(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "step_4"
    link.symlink_to(folder)
    with pytest.raises(UserError, match="is a symbolic link, and a snapshot is a folder of its run"):
        read_manifest(link)
