"""What another user of the machine gets of a run and can do to it, played by one; and what crashes leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.prepare.run_dir import begin_run
from launch.prepare.run_lock import check_not_running, claim, is_running
from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config
from tests.strangers import as_stranger, needs_stranger, open_to_all, stranger
from tests.waiting import wait_until
from workers.run.files import RunDir

pytestmark = pytest.mark.processes

HOLD = (
    "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); "
)
SECRET = {"trackers": [{"kind": "my_trackers:Sheet", "options": {"api_key": "of-the-owner"}}]}


@needs_stranger
def test_a_stranger_can_read_a_run_but_neither_its_secrets_nor_hold_its_lock() -> None:
    with open_to_all() as folder:
        run = RunDir(folder / "run")
        with claim(run.path) as claimed:
            begin_run(parse_config(SECRET), run.path)
            claimed.keep()
        run.path.chmod(0o755)
        assert as_stranger("ls", str(run.path)).returncode == 0, "the folder itself is open"
        for command in (
            ("cat", run.config),
            ("flock", "-n", "-x", run.lock, "true"),
            ("flock", "-s", run.lock, "true"),
        ):
            done = as_stranger(*map(str, command))
            assert done.returncode != 0
            assert "Permission denied" in done.stderr
        claim(run.path).release()


@needs_stranger
def test_a_lock_that_earlier_versions_left_open_to_all_is_shut_when_it_is_taken() -> None:
    with open_to_all() as folder:
        run = RunDir(folder / "run")
        run.path.mkdir(mode=0o755)
        run.lock.touch(mode=0o644)
        run.lock.chmod(0o644)
        claim(run.path).release()
        assert as_stranger("flock", "-n", "-x", str(run.lock), "true").returncode != 0


@needs_stranger
def test_who_holds_a_lock_is_named_by_process_and_user() -> None:
    with open_to_all() as folder:
        run = RunDir(folder / "run")
        run.path.mkdir(mode=0o755)
        run.lock.touch()
        run.lock.chmod(0o644)  # as a stranger would have handed it over
        process = subprocess.Popen(stranger("flock", "--no-fork", "-x", str(run.lock), "sleep", "600"))
        try:
            wait_until(lambda: is_running(run), "the stranger to take the lock")
            with pytest.raises(ConfigError, match=rf"still being trained \(by process {process.pid} of user "):
                check_not_running(run.path)
        finally:
            process.kill()
            process.wait()


def test_who_holds_a_lock_after_the_one_that_took_it_has_ended_is_named_too(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    child = "import subprocess, sys; subprocess.Popen(['sleep', '600'], pass_fds=[file.fileno()])"
    taker = subprocess.Popen([sys.executable, "-c", HOLD + child, str(lock)], stdout=subprocess.DEVNULL)
    assert taker.wait() == 0
    (heir,) = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and _has(each, lock))
    try:
        assert is_running(RunDir(tmp_path))
        with pytest.raises(ConfigError, match=rf"\(by process {heir} of user "):
            check_not_running(tmp_path)
    finally:
        os.kill(heir, 9)
        wait_until(lambda: not is_running(RunDir(tmp_path)), "the lock to be free")


def _has(process: Path, file: Path) -> bool:
    try:
        return any(os.readlink(each) == str(file) for each in (process / "fd").iterdir())
    except OSError:
        return False


def test_a_process_that_holds_the_key_leaves_no_core_dump(tmp_path: Path) -> None:
    code = (
        "import json, resource, subprocess, sys; from workers.run.environment import disable_core_dumps; "
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2); "
        "disable_core_dumps(); ask = 'import resource; print(list(resource.getrlimit(resource.RLIMIT_CORE)))'; "
        "print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE)])); sys.stdout.flush(); "
        "subprocess.run([sys.executable, '-c', ask])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, child = (json.loads(line) for line in done.stdout.splitlines())
    assert own == [[0, 0]]
    assert child == [0, 0], "what it starts does not either"
