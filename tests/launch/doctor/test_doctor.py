"""`onward doctor` as it is typed: alone, and between two programs that stand for two hosts."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest

from launch.commands.doctor import parse_address
from launch.doctor.comparison import OtherHost
from launch.doctor.peer import answer_one, compare_with, listen
from pipeline.errors import UserError
from tests.laboratory.hosts import laboratory, needs_laboratory
from tests.recovery import python
from tests.runs import Process, onward

SUBJECTS = ["versions", "GPUs", "interfaces", "own name", "ports", "memory", "cores", "/dev/shm", "limits", "runs"]
COMPARED = ["versions", "clock", "way", "way", "speed", "runs"]


def subjects(page: str) -> list[str]:
    """What was looked at, in order."""
    return re.findall(r"^(?:ok|note|WRONG) +(\S+(?: \S+)?)(?=  )", page, re.M)


@pytest.mark.processes
def test_two_hosts_are_compared_and_both_say_the_same(tmp_path: Path) -> None:
    waiting = Process(["doctor", "--run-dir", str(tmp_path), "--listen", "0"], forked=True)
    try:
        waiting.wait_for("waiting for the other host")
        port = re.findall(r"--with \S+:(\d+)", waiting.out)[0]
        coming = onward("doctor", "--run-dir", tmp_path, "--with", f"127.0.0.1:{port}")
        out, error = waiting.communicate()
    finally:
        waiting.kill()
    compared = coming.stdout.partition("\n\n")[2]
    assert subjects(coming.stdout) == SUBJECTS + COMPARED, (coming.stdout, coming.stderr)
    assert out.endswith(compared), (out, error)
    assert "ok     versions    the same on" in compared
    assert "sees the file that" in compared
    for process, page in ((coming.returncode, coming.stdout), (waiting.returncode, out)):
        assert process == ("nothing is wrong" not in page)


@pytest.mark.processes
def test_what_is_wrong_decides_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    alone = onward("doctor", "--run-dir", tmp_path / "file", "--with", "127.0.0.1")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "error: --with: '127.0.0.1' is not HOST:PORT" in alone.stderr


@pytest.mark.processes
@pytest.mark.slow
@needs_laboratory
def test_two_hosts_of_their_own_with_a_folder_that_is_not_shared() -> None:
    with laboratory(2, "debian") as lab:
        command = python("-m", "launch.cli", "doctor", "--run-dir", str(lab.unshared))
        waiting = lab[1].start([*command, "--listen", "29000"])
        waiting.wait_for(f"onward doctor --with {lab[1].address}:29000")
        coming = lab[2].start([*command, "--with", "node1:29000"])
        pages = [process.communicate()[0] for process in (waiting, coming)]
        assert [waiting.returncode, coming.returncode] == [0, 0]
        for page in pages:
            assert f"node2 reaches node1 by {lab[1].address}" in page
            assert f"node1 reaches node2 by {lab[2].address}" in page
            assert "is another folder than" in " ".join(page.split())
            assert page.endswith("nothing is wrong\n"), page
        assert "which leads other hosts to themselves" in pages[0]


def test_a_host_that_differs_is_told_to_both() -> None:
    here, there = (OtherHost(host=name, versions={"PyTorch": version}) for name, version in (("a", "1"), ("b", "2")))
    found = []
    with listen(0) as listener:
        thread = threading.Thread(target=lambda: found.extend(answer_one(listener, there)))
        thread.start()
        compared = compare_with(("127.0.0.1", listener.getsockname()[1]), here)
        thread.join()
    assert found == compared
    assert [finding.subject for finding in compared if finding.wrong] == ["versions", "way", "way"]
    assert compared[0].text == "b has PyTorch 2 and not 1 as a"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400\n", b'{"host": 1}\n', b'{"host": "x"}\n', b"x" * (1 << 19)])
def test_a_stranger_at_the_port_is_one_sentence(said: bytes) -> None:
    with listen(0) as listener:
        stranger = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))

        def speak() -> None:
            with stranger:
                stranger.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(UserError, match=r"onward doctor|the connection"):
            answer_one(listener, OtherHost(host="a", versions={}))
        stranger.close()
        thread.join()


def test_nobody_listens() -> None:
    with listen(0) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}: Connection refused\. Is the other side listening"):
        compare_with(("127.0.0.1", port), OtherHost(host="a", versions={}))


@pytest.mark.parametrize(
    ("text", "address"),
    [("n1:29", ("n1", 29)), ("10.0.0.1:9", ("10.0.0.1", 9)), ("[fd00::1]:9", ("fd00::1", 9))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["n1", "fd00::1:9", "n1:0", "n1:70000", "n1:x", ":9", "[]:9"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--with: '"):
        parse_address(text)
