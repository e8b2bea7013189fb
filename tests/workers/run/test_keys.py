"""The key that a user gives in a file: read only where nobody else may read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.strangers import NOBODY, needs_root
from workers.run.keys import KEY_VARIABLE, fingerprint, given_key, write_key


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_key(tmp_path / "key")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    return tmp_path / "key"


def test_a_key_is_read_also_through_a_link_and_with_a_line_end(key: Path) -> None:
    """As Kubernetes mounts a Secret."""
    given = bytes.fromhex(key.read_text())
    key.rename(key.with_name("..data"))
    key.symlink_to("..data")
    key.write_text(f"{given.hex()}\n")
    assert given_key() == given


def test_none_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert given_key() is None


@pytest.mark.parametrize("content", ["", "secret", "a" * 63, "g" * 64, "a" * 65, "é" * 64])
def test_what_is_no_key_is_refused(key: Path, content: str) -> None:
    key.write_text(content)
    with pytest.raises(UserError, match=r"does not hold a key of 64 hexadecimal digits\. Make one, the same on every"):
        given_key()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o622])
def test_a_key_that_others_may_read_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(UserError, match=rf"others may read '{key}' .mode {mode:04o}, owner {os.geteuid()}.*chmod 600"):
        given_key()


def test_a_key_that_is_not_there_or_no_file_is_refused(key: Path) -> None:
    key.unlink()
    with pytest.raises(UserError, match=r"cannot be read .No such file"):
        given_key()
    os.mkfifo(key)
    with pytest.raises(UserError, match="cannot be read"):
        given_key()


@needs_root
def test_a_key_of_another_user_is_refused(key: Path) -> None:
    os.chown(key, NOBODY, NOBODY)
    with pytest.raises(UserError, match=f"owner {NOBODY}"):
        given_key()


def test_a_fingerprint_tells_keys_apart_and_not_what_they_are() -> None:
    assert fingerprint(None) == ""
    assert fingerprint(b"a") != fingerprint(b"b")
    assert b"a".hex() * 4 not in fingerprint(b"a" * 4)
