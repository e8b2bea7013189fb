"""Folders of this user alone: what another user has made first, or can exchange, is not used."""

from __future__ import annotations

import os
import resource
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from tests.strangers import NOBODY, needs_root
from workers.run import private
from workers.run.environment import allow_open_files
from workers.run.private import cache_settings, is_own, make_private, remove_fresh_cache, temporary_places, why_unsafe

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory as /tmp is: anybody may make entries, and nobody remove those of others."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    for name in (*private.VARIABLES, *CACHES, private._FRESH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return folder


def usual(shared: Path) -> Path:
    return shared / f"onward_{os.geteuid()}"


def settings() -> dict[str, str]:
    return cache_settings(os.environ)


def private_only(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700


def test_the_caches_of_the_compilers_are_private_and_stay_from_run_to_run(shared: Path) -> None:
    found = settings()
    assert [found[name] for name in CACHES] == [str(usual(shared) / part) for part in ("inductor", "triton")]
    assert all(private_only(Path(found[name])) for name in CACHES)
    assert private_only(usual(shared))
    assert found["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] == "0"
    assert "TMPDIR" not in found
    assert settings() == found


def made_by_a_stranger(path: Path) -> None:
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.mkdir()
    path.symlink_to(target)


HARMS = [pytest.param(made_by_a_stranger, marks=needs_root), open_to_all, a_link, lambda path: path.write_text("")]
IDS = ["of a stranger", "open to all", "a link", "a file"]


@pytest.mark.parametrize("harm", HARMS, ids=IDS)
def test_what_has_the_name_already_is_not_used(shared: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    harm(usual(shared))
    found = settings()
    assert [found[name] for name in CACHES] == [str(tmp_path / "home" / "onward" / p) for p in ("inductor", "triton")]


@pytest.mark.parametrize("harm", HARMS, ids=IDS)
def test_where_there_is_nowhere_else_a_fresh_one_is_made_and_removed(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object]
) -> None:
    (tmp_path / "home").write_text("no folder")
    harm(usual(shared))
    found = settings()
    monkeypatch.setenv(private._FRESH, found[private._FRESH])
    fresh = Path(found[CACHES[0]]).parent
    assert fresh.parent == shared
    assert fresh != usual(shared)
    assert private_only(fresh)
    assert settings() == found  # so do the processes that this one starts
    remove_fresh_cache()
    assert not fresh.exists()


@pytest.mark.parametrize("harm", HARMS, ids=IDS)
def test_a_folder_that_the_user_asked_for_is_used_only_if_it_is_his(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object]
) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    monkeypatch.setenv(CACHES[0], str(mine))
    assert settings()[CACHES[0]] == str(mine)
    harm(other)
    monkeypatch.setenv(CACHES[0], str(other))
    assert settings()[CACHES[0]] == str(usual(shared) / "inductor")


@pytest.mark.parametrize("harm", HARMS, ids=IDS)
def test_the_name_that_pytorch_itself_would_take_leads_elsewhere_if_it_is_taken(
    shared: Path, harm: Callable[[Path], object]
) -> None:
    """Some of its caches obey no variable but TMPDIR."""
    taken = Path(default_cache_dir())
    assert taken.parent == shared
    harm(taken)
    assert settings()["TMPDIR"] == str(usual(shared) / "tmp")
    assert private_only(usual(shared) / "tmp")


def test_a_folder_that_others_can_exchange_is_nobodys(tmp_path: Path) -> None:
    """The folder is the user's, and who may write to the one above it can put another in its place."""
    above, problems = tmp_path / "above", list[str]()
    folder = above / "folder"
    folder.mkdir(parents=True)
    assert is_own(folder)
    above.chmod(0o777)
    assert not is_own(folder)
    assert why_unsafe(folder) == f"others may write to '{above}'"
    (tmp_path / "sound").mkdir()
    made = make_private("onward-", [str(above), str(tmp_path / "none"), str(tmp_path / "sound")], problems)
    assert Path(made).parent == tmp_path / "sound"
    assert private_only(Path(made))
    assert problems == [f"others may write to '{above}'", f"'{tmp_path / 'none'}': No such file or directory"]
    assert make_private("onward-", [str(above)], []) == ""
    above.chmod(0o1777)
    assert is_own(folder)


def test_the_working_directory_is_no_place_for_temporary_files(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes it where it can write to no other."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert str(here) not in temporary_places()
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(private, "PLACES", (str(shared),))
    monkeypatch.setattr(tempfile, "tempdir", None)
    read_only = str(tmp_path / "read-only")
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ.get("TMPDIR", read_only), str(here)])
    assert tempfile.gettempdir() == str(here)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    private.use_own_folders()
    assert os.environ["TMPDIR"] == str(shared)
    assert os.environ[CACHES[0]].startswith(str(shared))
    assert list(here.iterdir()) == []


def test_unless_the_user_names_it(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    assert settings()[CACHES[0]] == str(usual(shared) / "inductor")


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        (1024, 4096, (4096, 4096)),
        (1024, resource.RLIM_INFINITY, (1 << 20, resource.RLIM_INFINITY)),
        (4096, 4096, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_a_process_may_open_as_many_files_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, then: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    allow_open_files()
    assert asked == ([] if then is None else [then])
