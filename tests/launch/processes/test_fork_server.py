"""The server that forks a run's processes: what they are given, how their ends are heard, what happens without it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.processes import fork_client as forked
from launch.processes.child import Child
from launch.processes.fork_client import LOST, ForkServer
from pipeline.errors import TrainingError
from tests.runs import LIMIT, ROOT

pytestmark = pytest.mark.processes
MODULE = """
import json, os, signal, sys, threading
line = sys.stdin.readline()
answer = {"start": json.loads(line), "argv": sys.argv, "name": __name__, "value": os.environ.get("VALUE"),
          "threads": threading.active_count(), "sid": os.getsid(0) == os.getpid(), "torch": "torch" in sys.modules,
          "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))}
print("to the log", file=sys.stderr, flush=True)  # before it is heard of: it may be killed from then on
os.write(int(sys.argv[1]), json.dumps(answer).encode() + b"\\n")
for line in sys.stdin:
    sys.exit(json.loads(line)["code"])
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("modules")
    (place / "onward_test_child.py").write_text(MODULE)
    return {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ForkServer]:
    """Of all tests, since it imports for seconds; to one that finds it killed it is a new one.

    Made by a process that has blocked a signal, as one does that starts a loader worker.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        made = ForkServer(environment, tmp_path_factory.mktemp("server") / "server.log")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with made as started:
        yield started


def child(tmp_path: Path, server: ForkServer, environment: dict[str, str], **start: Any) -> Child:
    start = {"run_dir": str(tmp_path / "run"), **start}
    record = SimpleNamespace(run_dir=start["run_dir"], to_message=lambda: start)
    return Child("onward_test_child", record, environment, tmp_path / "child.log", quiet=True, server=server)


def test_a_forked_process_is_what_a_new_one_would_be(
    tmp_path: Path, server: ForkServer, environment: dict[str, str]
) -> None:
    first = child(tmp_path, server, {**environment, "VALUE": "1"}, number=1)
    second = child(tmp_path, server, {**environment, "VALUE": "2"}, number=2)
    for number, one in enumerate((first, second), 1):
        word = one.first_message(LIMIT)
        assert word["start"]["number"] == number
        assert (word["value"], word["name"]) == (str(number), "__main__")
        assert word["argv"][0].endswith("onward_test_child.py")  # as with `python -m`
        assert word["threads"] == 1
        assert word["sid"]
        assert word["torch"]
        assert not word["blocked"]
        title = Path(f"/proc/{one.process.pid}/cmdline").read_text()
        assert "onward onward_test_child child" in title
    first.send({"code": 3})
    assert first.process.wait(LIMIT) == 3
    assert second.process.poll() is None
    second.process.kill()
    assert second.process.wait(LIMIT) == -signal.SIGKILL
    assert (tmp_path / "child.log").read_text().count("to the log") == 2
    for one in (first, second):
        one.close()


def test_a_wait_has_an_end(tmp_path: Path, server: ForkServer, environment: dict[str, str]) -> None:
    one = child(tmp_path, server, environment)
    one.first_message(LIMIT)
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        one.process.wait(0.2)
    assert (caught.value.timeout, one.process.poll()) == (0.2, None)
    one.close()
    assert one.process.returncode == -signal.SIGKILL


def test_the_end_of_a_process_is_seen_without_the_server(
    tmp_path: Path, server: ForkServer, environment: dict[str, str]
) -> None:
    one = child(tmp_path, server, environment)
    one.first_message(LIMIT)
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert one.process.poll() is None
    one.send({"code": 0})
    assert one.process.wait(LIMIT) == LOST
    again = child(tmp_path, server, environment)  # from a new server
    assert again.first_message(LIMIT)["torch"]
    for each in (one, again):
        each.close()


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """Its channel closes, as it does when that process is killed."""
    starter = (
        "import os, sys, time; from pathlib import Path; from launch.processes.fork_client import ForkServer\n"
        "print(ForkServer(dict(os.environ), Path(sys.argv[1])).pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter, str(tmp_path / "server.log")], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    handle = os.pidfd_open(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    assert select.select([handle], [], [], LIMIT)[0], "the server lives on"
    os.close(handle)


def test_a_server_that_cannot_start_is_an_error_with_a_place_to_look(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is missing')")
    server = ForkServer({**environment, "PYTHONPATH": str(tmp_path)}, tmp_path / "server.log")
    with pytest.raises(TrainingError, match=r"no process could be started.*server\.log"):
        child(tmp_path, server, environment)
    server.close()
    assert "libcudart is missing" in (tmp_path / "server.log").read_text()


def test_the_command_itself_does_not_load_torch() -> None:
    """Or every start would take seconds longer, for nothing: the fork server loads it."""
    loaded = "import sys, launch.cli, launch.processes.local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, timeout=LIMIT).returncode == 0


def test_a_server_that_takes_too_long_is_told_from_one_that_ended(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "START_SECONDS", 1.0)
    with ForkServer(environment, tmp_path / "server.log") as server:
        os.kill(server.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(TrainingError, match=r"within 1 s, in which .*: this machine is too busy, or"):
            child(tmp_path, server, environment)
