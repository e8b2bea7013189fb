"""A run directory belongs to one start at a time, and a start that fails leaves nothing that stops the next."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from launch.prepare.run_dir import begin_run, claim_run
from launch.prepare.run_lock import LOOK_SECONDS, POLL_SECONDS, Claim, claim, is_running
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config
from workers.run.files import RunDir


def into(path: Path) -> Config:
    return parse_config({"run_dir": str(path)})


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_second_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with claim(path) as first:
        begin_run(into(path), path)
        first.keep()
        before = everything(tmp_path)
        taken = rf"^run_dir: the run in '{path}' is still being trained \(by process {os.getpid()} of user .*\)\. Wait"
        with pytest.raises(ConfigError, match=taken):
            claim(path)
        assert is_running(RunDir(path))
        assert everything(tmp_path) == before
    assert not is_running(RunDir(path))
    with claim(path) as again:
        assert again.made == []


def test_whoever_was_given_the_lock_holds_it_when_the_first_has_gone(tmp_path: Path) -> None:
    first = claim(tmp_path / "run")
    (descriptor,) = first.held
    kept = os.dup(descriptor)
    first.release()
    assert is_running(first.run)
    os.close(kept)
    assert not is_running(first.run)


def test_many_that_start_at_once_get_it_one_after_the_other(tmp_path: Path) -> None:
    """Some fail and take away what they made while others come: nobody is left with a lock that has no name."""
    inside, most, ended = [], [], []

    def start(number: int) -> None:
        try:
            with claim(tmp_path / "deep" / "run", wait=60.0) as held:
                inside.append(number)
                most.append(len(inside))
                assert held.descriptor is not None
                assert os.path.samestat(os.fstat(held.descriptor), held.run.lock.stat())
                inside.remove(number)
                if number % 2:
                    raise RuntimeError
        except RuntimeError:
            pass
        ended.append(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == list(range(24))
    assert max(most) == 1


def test_who_only_looks_is_not_taken_for_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    with RunDir(path).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        claim(path, wait=60.0).release()


def start_that_fails(path: Path, begin: bool) -> None:
    with claim(path):
        if begin:
            begin_run(into(path), path)
        raise ConfigError("data.root", "is no folder", "Give one")


@pytest.mark.parametrize("before", [[], ["run"]], ids=["nothing", "an empty folder"])
def test_a_start_that_fails_takes_away_what_it_made(tmp_path: Path, before: list[str]) -> None:
    for name in before:
        (tmp_path / name).mkdir()
    path = tmp_path / "run"

    with pytest.raises(ConfigError, match="is no folder"):
        start_that_fails(path, begin=not before)
    assert everything(tmp_path) == before


def test_a_run_that_was_there_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with claim(path) as first:
        begin_run(into(path), path)
        first.keep()
    before = everything(tmp_path)

    with pytest.raises(ConfigError, match="is no folder"):
        start_that_fails(path, begin=False)
    assert everything(tmp_path) == before


def test_what_a_start_left_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    """Before it had written config.yaml: then the folder is not a run yet, and it is nobody else's either."""
    path = tmp_path / "run"
    (path / "logs").mkdir(parents=True)
    (path / ".lock").touch()
    (path / ".config.yaml.4711.tmp").write_text("seed: ")
    claim_run(into(path), "any").release()
    (path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"is not empty .* and is not a run"):
        claim_run(into(path), "any")


def test_folders_of_runs_that_start_within_a_second_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = [claim_run(Config(), "quickstart") for _ in range(3)]
    assert len({claimed.run.path for claimed in claims}) == 3
    for claimed in claims:
        claimed.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_starts_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with claim(tmp_path / "run") as claimed:
        assert claimed.held == ()
        assert "has no locks: nothing stops a second start" in claimed.notes[0]
        assert not is_running(claimed.run)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(ConfigError, match=r"^run_dir: '.*run' cannot be written \(No space left on device\)"):
        claim(tmp_path / "deep" / "run")
    assert everything(tmp_path) == []


def test_a_claim_is_given_back_once(tmp_path: Path) -> None:
    held = claim(tmp_path / "run")
    held.release()
    held.release()
    assert isinstance(held, Claim)


class Clock:
    """Stands for the module `time`; passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("given", "patience"), [({}, LOOK_SECONDS), ({"wait": 5.0}, 5.0)], ids=["a look", "asked for"])
def test_a_run_that_is_held_is_waited_for_as_long_as_was_asked_and_else_no_longer_than_a_look_takes(
    tmp_path: Path, given: dict[str, float], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with claim(tmp_path / "run") as first:
        monkeypatch.setattr("launch.prepare.run_lock.time", clock)
        with pytest.raises(ConfigError, match="is still being trained"):
            claim(tmp_path / "run", **given)
        first.keep()
    assert patience <= round(clock.now - 1000.0, 6) <= patience + 2 * POLL_SECONDS


def test_whether_a_run_of_somebody_else_goes_on_is_asked_of_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("launch.prepare.run_lock.open_to_read", shut)
    with claim(tmp_path / "run") as first:
        first.keep()
        assert is_running(RunDir(tmp_path / "run"))
    assert not is_running(RunDir(tmp_path / "run"))


def test_a_lock_that_is_a_link_or_a_pipe_is_not_taken(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for make in (lambda lock: lock.symlink_to(outside), os.mkfifo):
        run = RunDir(tmp_path / f"run{make is os.mkfifo}")
        run.path.mkdir()
        make(run.lock)
        with pytest.raises(ConfigError, match=r"it is a symbolic link|it is no ordinary file"):
            claim(run.path)
        assert os.path.lexists(run.lock)
    assert outside.read_text() == "mine"
