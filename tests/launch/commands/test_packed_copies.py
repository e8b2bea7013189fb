"""A packed copy that is damaged or was changed is refused, and a whole one is trained on."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.sets.index import difference, fingerprint, scan
from pipeline.errors import UserError
from tests.launch.commands.packed_copies import Onward, original, packed


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rewritten(out: Path, **columns: Any) -> None:
    """Another index, of which the manifest has size and digest."""
    import hashlib

    with np.load(out / "train.npz") as found:
        arrays = dict(found) | columns
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (out / "train.npz").write_bytes(buffer.getvalue())
    known = {"bytes": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    changed(out / "manifest.json", lambda m: m["splits"]["train"]["index"].update(known))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda out: (out / "manifest.json").unlink(), r"is no packed data set: .*manifest\.json"),
    "no JSON": (lambda out: (out / "manifest.json").write_text("{"), r"manifest\.json' is damaged"),
    "of another version": (
        lambda out: changed(out / "manifest.json", lambda m: m.update(format="onward-packed-2")), "of another version",
    ),
    "a path that leads out": (
        lambda out: changed(out / "manifest.json", lambda m: m["splits"]["train"]["index"].update(name="../x.npz")),
        r"damaged or of another version: splits\.train\.index\.name",
    ),
    "a shard is missing": (lambda out: (out / "train-00001.bin").unlink(), r"train-00001\.bin' cannot be read"),
    "a shard is short": (lambda out: os.truncate(out / "train-00001.bin", 5), "has 5 bytes, and .* were packed"),
    "the index was changed": (
        lambda out: (out / "train.npz").write_bytes(bytes((out / "train.npz").stat().st_size)), "SHA-256",
    ),
    "too few rows": (lambda out: rewritten(out, start=np.zeros(3, np.int64)), "does not describe the 10 images"),
    "a place outside": (lambda out: rewritten(out, end=np.full(10, 10**9)), "points outside of the packed files"),
    "a shard that is not there": (lambda out: rewritten(out, shard=np.full(10, 3)), "points outside"),
    "two channels": (lambda out: rewritten(out, channels=np.full(10, 2)), "points outside"),
    "another height": (lambda out: rewritten(out, height=np.full(10, 7)), "points outside"),
    "no numbers": (lambda out: rewritten(out, label=np.full(10, 0.5)), "cannot be read"),
    "a label that cannot be": (lambda out: rewritten(out, label=np.full(10, 2)), "labels"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_copy_is_refused(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None], what: str
) -> None:
    out = tmp_path / "out"
    onward("data", "pack", source, out, "--format", "raw", "--short-side", "32")
    damage, message = DAMAGE[what]
    damage(out)
    assert_refused(onward("data", "verify", out), message)
    with pytest.raises(UserError, match=message):
        packed(out)


def test_bits_that_fell_over_are_found(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None]
) -> None:
    out = tmp_path / "out"
    onward("data", "pack", source, out, "--format", "raw", "--short-side", "32")
    content = bytearray((out / "train-00001.bin").read_bytes())
    content[7] ^= 1
    (out / "train-00001.bin").write_bytes(content)
    assert_refused(onward("data", "verify", out), r"train-00001\.bin' is damaged: its SHA-256")


def test_a_packed_copy_has_a_fingerprint(source: Path, tmp_path: Path, onward: Onward) -> None:
    for name, side in (("a", 32), ("b", 32), ("c", 16)):
        onward("data", "pack", source, tmp_path / name, "--short-side", side)
    a, b, c = (packed(tmp_path / name) for name in "abc")
    assert fingerprint(a) == fingerprint(b) != fingerprint(c)
    assert difference(scan(a), scan(c)) == "its pixels differ"
    assert a.manifest.splits["train"].source == fingerprint(original(source))


def test_training_on_it(source: Path, tmp_path: Path, onward: Onward, folder: Path, fake_training: list[Path]) -> None:
    assert onward("data", "pack", source, folder / "packed", "--short-side", "32").code == 0
    overrides = ["data.name=packed", "data.root=packed"]
    assert onward("check", "config.yaml", *overrides).code == 0
    assert onward("train", "config.yaml", *overrides).code == 0
    assert len(fake_training) == 1
    again = onward("data", "pack", "config.yaml", "twice")
    assert again.code == 0
    (folder / "c.yaml").write_text("data: {name: packed, root: packed}\n")
    assert "reads a packed data set already" in onward("data", "pack", "c.yaml", "thrice").err


@pytest.mark.parametrize("what", ["a place outside", "a shard that is not there", "two channels"])
def test_a_damaged_copy_of_jpegs_is_refused(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None], what: str
) -> None:
    onward("data", "pack", source, tmp_path / "out", "--short-side", "32")
    damage, message = DAMAGE[what]
    damage(tmp_path / "out")
    assert_refused(onward("data", "verify", tmp_path / "out"), message)
