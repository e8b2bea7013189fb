"""What a run shows to others: where it listens, where its key is, and what strangers and hostile files can do to it."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import AuthenticationError
from pathlib import Path

import pytest

from tests.listening import listeners, tree
from tests.marks import slow
from tests.recovery import faults, pause
from tests.runs import report, start, train
from tests.waiting import wait_until
from workers.links import wire

STEPS = "train.max_steps=12"


# --- what can be seen of a run ---------------------------------------------------------------------------------------


def test_the_check_for_listeners_itself(tmp_path: Path) -> None:
    with socket.socket() as everywhere, socket.socket() as here, socket.socket(socket.AF_UNIX) as named:
        everywhere.bind(("0.0.0.0", 0))
        here.bind(("127.0.0.1", 0))
        named.bind(str(tmp_path / "named"))
        assert not {"0.0.0.0", "127.0.0.1"} & listeners([os.getpid()])
        for one in (everywhere, here, named):
            one.listen()
        assert {"0.0.0.0", "127.0.0.1", str(tmp_path / "named")} <= listeners([os.getpid()])


class Watched:
    """A run with a folder for temporary files of its own, and what was seen of it while it ran.

    Stage 1 waits at its fifth step until somebody has looked, so that there is something to see on any machine.
    """

    def __init__(self, folder: Path, *overrides: str, forked: bool = False) -> None:
        self.folder = folder
        # A socket's path must be short.
        self.temporary = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
        self.go = folder / "go"
        waits = faults(pause(self.go, 1, 4))
        given = {"TMPDIR": str(self.temporary)}
        self.process = start(folder, *overrides, waits, environment=given, forked=forked)
        self.out = self.err = ""

    def private(self) -> Path | None:
        """The folder with the run's key, once it is there."""
        return next((path.parent for path in self.temporary.glob("onward-*/key") if path.read_text()), None)

    def while_it_runs(self, look: Callable[[list[int]], None], pause: float = 0.2) -> None:
        """Call `look` with the processes of the run until they have ended."""
        output = threading.Thread(target=self._read)
        output.start()

        def looked() -> bool:
            ended, waits = self.process.poll() is not None, self._steps() >= 4
            if not ended:
                look(tree(self.process.pid))
            if waits:
                self.go.touch()
            return ended

        try:
            wait_until(looked, "the end of the run", pause=pause)
        finally:
            self.process.kill() if self.process.poll() is None else None
            output.join(30)
            shutil.rmtree(self.temporary)

    def _steps(self) -> int:
        metrics = self.folder / "run" / "metrics.jsonl"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    def _read(self) -> None:
        self.out, self.err = self.process.communicate()


class LookedAt(Watched):
    """A run to its end, in new interpreters, and all that could be seen of it from outside."""

    def __init__(self, folder: Path, link: str) -> None:
        super().__init__(folder, "train.max_steps=20", "data.workers=1", f"link.kind={link}")
        self.listening: set[str] = set()
        self.folder_modes: set[int] = set()
        self.environments: set[bytes] = set()
        self.keys: set[str] = set()
        self.key_modes: set[tuple[int, ...]] = set()
        self.shown: list[str] = []
        self.limits: set[tuple[bytes, ...]] = set()
        self.looks = 0
        self.while_it_runs(self._look, pause=0.03)

    def _look(self, pids: list[int]) -> None:
        self.looks += 1
        if self.looks % 5 == 1:
            self._listeners(pids)
        private = self.private()
        if private is not None:
            with suppress(OSError):  # it has just been removed
                self.keys.add((private / "key").read_text())
                self.key_modes.add(tuple(stat.S_IMODE(path.stat().st_mode) for path in (private, private / "key")))
        for pid in pids:
            for file in ("cmdline", "environ"):
                data = _read(Path(f"/proc/{pid}/{file}"))
                if any(key.encode() in data or bytes.fromhex(key) in data for key in self.keys):
                    self.shown.append(f"{pid} {file}")
            if private is not None:  # before there is a key, git and the like run with the limits of the user
                limits = _read(Path(f"/proc/{pid}/limits")).splitlines()
                self.limits.update(tuple(line.split()[4:6]) for line in limits if b"core" in line)

    def _listeners(self, pids: list[int]) -> None:
        new = listeners(pids) - self.listening
        self.folder_modes.update(stat.S_IMODE(Path(path).parent.stat().st_mode) for path in new if path[0] == "/")
        self.listening.update(new)
        members = [pid for pid in pids if b"launch.processes.stage_main" in _read(Path(f"/proc/{pid}/cmdline"))]
        self.environments.update(_read(Path(f"/proc/{pid}/environ")) for pid in members)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LookedAt]:
    """A run over a kind of link, one for all tests."""
    return functools.cache(lambda link: LookedAt(tmp_path_factory.mktemp(link), link))


@pytest.mark.processes
@pytest.mark.parametrize("link", ["queue", slow("rpc"), slow("p2p")])
def test_a_run_listens_where_nobody_else_can_come(link: str, looked_at: Callable[[str], LookedAt]) -> None:
    run = looked_at(link)
    assert run.process.returncode == 0, run.err
    seen = run.listening
    named = {where for where in seen if where.startswith("/")}
    assert any(path.endswith("/control") for path in named), seen
    assert run.folder_modes == {0o700}
    # TensorPipe meets processes of its host at sockets that have no file; deploy/security.md says what that means.
    unnamed = {where for where in seen if where.startswith("@")} if link == "rpc" else set()
    assert seen - named - unnamed <= {"127.0.0.1", "::1"}
    told = {variables for variables in run.environments if variables}
    assert told
    for name in (b"GLOO_SOCKET_IFNAME", b"TP_SOCKET_IFNAME", b"NCCL_SOCKET_IFNAME"):  # for hosts with a public name
        assert all(name + b"=lo\0" in variables for variables in told)


@pytest.mark.processes
def test_the_key_is_seen_in_one_private_file_only(looked_at: Callable[[str], LookedAt]) -> None:
    run = looked_at("queue")
    assert run.process.returncode == 0, run.err
    assert len(run.keys) == 1
    (key,) = run.keys
    assert len(bytes.fromhex(key)) == 32
    assert run.key_modes == {(0o700, 0o600)}
    assert not run.shown
    assert run.limits == {(b"0", b"0")}, "a process that crashes would leave the key in its core dump"
    assert key not in run.out + run.err
    files = [path for path in (run.folder / "run").rglob("*") if path.is_file()]
    assert any(path.name == "coordinator.log" for path in files)
    for path in files:
        data = path.read_bytes()
        assert key.encode() not in data, path
        assert bytes.fromhex(key) not in data, path


# --- strangers at the control channel ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(folder, STEPS, "runtime=serial").returncode == 0
    return str(report(folder)["final_digest"])


def attack(private: Path) -> Iterator[str]:
    """Everything that somebody who reaches the socket may try; what the coordinator should say to each."""
    path, key = str(private / "control"), bytes.fromhex((private / "key").read_text())

    def until_refused(sock: socket.socket, data: bytes) -> None:
        with sock, suppress(ConnectionError):
            sock.sendall(data)
            while sock.recv(4096):
                pass

    def raw(data: bytes) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(path)
        until_refused(sock, data)

    def known(data: bytes) -> None:
        with wire.connect(path, key, 5) as connection:
            until_refused(wire.as_socket(connection), data)

    def framed(data: bytes) -> bytes:
        return struct.pack("!i", len(data)) + data

    with pytest.raises(AuthenticationError):
        wire.connect(path, b"another key", 5)
    yield "digest received was wrong"
    for data in (b"GET / HTTP/1.1\r\n\r\n", struct.pack("!i", 2**31 - 1) + b"x", struct.pack("!iQ", -1, 2**63)):
        raw(data + b"x" * 100)
        yield "bad message length"
    raw(framed(b"x" * 20))
    yield "digest received was wrong"
    known(framed(b'{"hello": "stage 9"}'))
    yield "'stage 9' is not expected"
    known(framed(b'{"hello": "stage 1"}'))
    yield "'stage 1' is already connected"
    known(framed(b'{"hello": "stage 1\\nERROR \\u001b[2J \\ud800"}'))
    yield r"'stage 1\nERROR \x1b[2J \ud800' is not expected"
    known(framed(b"{"))
    known(framed(b"[" * 1000))
    yield from ["not JSON"] * 2
    known(framed(b'{"hello": 1}'))
    yield "did not say its name"
    known(framed(b" " * 2000))
    yield "bad message length"


@pytest.mark.processes
def test_strangers_are_refused_with_a_line_in_the_log_and_change_nothing(undisturbed: str, tmp_path: Path) -> None:
    run = Watched(tmp_path, STEPS, forked=True)
    expected: list[str] = []
    metrics = tmp_path / "run" / "metrics.jsonl"

    def look(pids: list[int]) -> None:
        private = run.private()
        if not expected and private is not None and metrics.exists() and metrics.read_text().count("\n") > 1:
            expected.extend(attack(private))

    run.while_it_runs(look)
    assert run.process.returncode == 0, run.err
    assert report(tmp_path)["final_digest"] == undisturbed
    log = (tmp_path / "run" / "logs" / "coordinator.log").read_text()
    refusals = [line for line in log.splitlines() if "control: refused a " in line]
    assert len(refusals) == len(expected) > 10, log
    for words in set(expected):
        assert sum(words in line for line in refusals) >= expected.count(words), (words, log)
    assert "Traceback" not in log


GARBLED = """
import json, os
from multiprocessing.connection import Connection
original = Connection.send_bytes
def send_bytes(self, data, *rest):
    if bytes(data).startswith(b'{"type": "report"'):
        report = json.loads(data)
        if (report["stage"], report["step"]) == (2, 3):
            data = eval(os.environ["GARBLED"])
    return original(self, data, *rest)
Connection.send_bytes = send_bytes
"""
"""The third report of stage 2 becomes what the environment says."""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("garbled", "message"),
    [
        slow("b'{'", "not JSON"),
        slow("b'[' * 100000", "not JSON"),
        ("json.dumps({**report, 'stage': 99}).encode()", "stage 99"),
        slow("json.dumps({**report, 'step': 10**6}).encode()", "step 1000000"),
        slow("json.dumps({**report, 'loss': 'low'}).encode()", "valid 'loss"),
        slow("json.dumps({'type': 'report'}).encode()", "valid 'stage'"),
        slow("json.dumps({'type': 'failure', 'who': 7}).encode()", "valid 'who'"),
        slow("json.dumps({'type': 'snapshot', 'stage': 2, 'steps': 'x'}).encode()", "valid 'steps'"),
        slow("json.dumps({'type': 'beat', 'stage': [], 'step': 'x', 'computing': {}}).encode()", "valid 'stage"),
    ],
)
def test_a_stage_that_talks_nonsense_ends_the_run_with_one_message(garbled: str, message: str, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(GARBLED)
    result = train(tmp_path, STEPS, environment={"PYTHONPATH": str(hook), "GARBLED": garbled})
    assert result.returncode == 1, result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: stage 2 failed at step ")
    assert message in result.stderr
    assert "Traceback" not in (tmp_path / "run" / "logs" / "coordinator.log").read_text()
