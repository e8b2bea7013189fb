"""Files over a connection of their own: whole or not at all, whatever is damaged, ends or is too large on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from tests.waiting import wait_until
from workers.control import transfer
from workers.control.channel import Message
from workers.control.transfer import TransferClient, TransferFailed, receive_message, send_message
from workers.control.transfer_server import TransferServer
from workers.links import wire

KEY = b"key"
CONTENT = bytes(range(256)) * 40
WHAT: Message = {"name": "file"}
GONE = "it has gone|connection ended|nobody answered"


class Folder:
    """Files by their name; for the one that is called `none`, there is no place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, what: Message) -> Path:
        if what["name"] == "none":
            raise UserError("there is no place for it")
        return self.root / what["name"]

    def find(self, what: Message) -> tuple[Message, Path] | None:
        path = self.root / what["name"]
        return ({"is": "a file"}, path) if path.exists() else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 1000)
    monkeypatch.setattr(transfer, "AGAIN_SECONDS", 0.01)
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def server(folder: Path) -> Iterator[TransferServer]:
    with TransferServer(("127.0.0.1", 0), KEY, Folder(folder), most_bytes=len(CONTENT)) as server:
        yield server


@pytest.fixture
def client(server: TransferServer) -> Iterator[TransferClient]:
    with TransferClient(server.address, KEY, "stage 2") as client:
        yield client


def put(client: TransferClient, content: bytes = CONTENT, what: Message = WHAT) -> str:
    return client.put(what, len(content), lambda: [content[:10], content[10:]])


def damaging(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """So many pieces are damaged on their way; returns how many are left."""
    send, left = transfer._send, [times]

    def damage(connection: Any, data: bytes | memoryview) -> None:
        if left[0] and len(data) == 1000:
            left[0] -= 1
            data = bytes(999) + b"x"
        send(connection, data)

    monkeypatch.setattr(transfer, "_send", damage)
    return left


def test_a_file_goes_there_and_back(client: TransferClient, folder: Path, tmp_path: Path) -> None:
    assert put(client) == hashlib.sha256(CONTENT).hexdigest()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", CONTENT)]
    received = client.get(WHAT, tmp_path)
    assert received is not None
    with received.file as file:
        assert (file.read(), received.about, received.sha256) == (CONTENT, {"is": "a file"}, put(client))
    assert client.get({"name": "another"}, tmp_path) is None
    assert put(client, b"", {"name": "empty"}) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_damaged_piece_is_noticed_and_the_file_is_sent_again(
    client: TransferClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "back":
        put(client)
    left = damaging(monkeypatch, transfer.TRIES - 1)
    if way == "there":
        put(client)
        assert (folder / "file").read_bytes() == CONTENT
    else:
        received = client.get(WHAT, tmp_path)
        assert received is not None
        with received.file as file:
            assert file.read() == CONTENT
    assert left == [0]
    damaging(monkeypatch, 1000)
    with pytest.raises(TransferFailed, match="what arrived"):
        put(client, what={"name": "other"}) if way == "there" else client.get(WHAT, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["file"]


def half_a_file(server: TransferServer, then: Callable[[Any], object]) -> None:
    """A client that sends half a file, and then something else."""
    connection = wire.connect(server.address, KEY, 30.0)
    send_message(connection, {"hello": "stage 3"})
    send_message(connection, {"put": WHAT, "bytes": len(CONTENT)})
    assert receive_message(connection, 30.0) == {"go": True}
    for start in range(0, len(CONTENT) // 2, 1000):
        connection.send_bytes(CONTENT[start : start + 1000])
    then(connection)
    connection.close()


@pytest.mark.parametrize(
    "then",
    [
        lambda connection: None,
        lambda connection: connection.send_bytes(b"x" * 1001),
        lambda connection: [connection.send_bytes(b"x" * 1000) for _ in range(6)],
    ],
    ids=["it goes away", "a piece too large", "more than it said"],
)
def test_half_a_file_is_removed_and_can_be_sent_again(
    server: TransferServer, client: TransferClient, folder: Path, then: Callable[[Any], object]
) -> None:
    half_a_file(server, then)
    wait_until(lambda: not list(folder.iterdir()), lambda: list(folder.iterdir()))
    put(client)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", CONTENT)]


def test_a_file_that_is_being_written_is_not_written_twice(server: TransferServer, client: TransferClient) -> None:
    """An earlier attempt may still hold it; the client waits for its end."""
    answers = []

    def another(connection: Any) -> None:
        other = wire.connect(server.address, KEY, 30.0)
        send_message(other, {"hello": "stage 2"})
        send_message(other, {"put": WHAT, "bytes": 1})
        answers.append(receive_message(other, 30.0))
        other.close()

    half_a_file(server, another)
    assert answers == [{"busy": True}]
    put(client)


def test_a_server_that_comes_back_gets_the_file_and_one_that_does_not_is_named(folder: Path) -> None:
    store = Folder(folder)
    server = TransferServer(("127.0.0.1", 0), KEY, store)
    client = TransferClient(server.address, KEY, "stage 2")
    opened = []

    def pieces() -> Iterator[bytes]:
        yield CONTENT[:5000]
        if not opened:
            server.close()
            opened.append(TransferServer(server.address, KEY, store))
        yield CONTENT[5000:]

    with client:
        client.put(WHAT, len(CONTENT), pieces)
        assert (folder / "file").read_bytes() == CONTENT
        opened[0].close()
        client._patience = 0.1
        with pytest.raises(TransferFailed, match=rf"the coordinator at 127.0.0.1:{server.address[1]}: .*({GONE})"):
            put(client)


def test_what_is_refused_is_said_and_not_tried_again(client: TransferClient, folder: Path) -> None:
    with pytest.raises(TransferFailed, match=rf"a file of {len(CONTENT) + 1} bytes is not accepted: at most"):
        put(client, CONTENT + b"x")
    with pytest.raises(TransferFailed, match="there is no place for it"):
        put(client, what={"name": "none"})
    (folder / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(TransferFailed, match=r"could not be written .Is a directory"):
        put(client, what={"name": "taken"})
    put(client)


def test_who_has_another_key_is_refused(server: TransferServer, folder: Path) -> None:
    with (
        TransferClient(server.address, b"other", "stage 2") as stranger,
        pytest.raises(TransferFailed, match="the key"),
    ):
        put(stranger)
    assert list(folder.iterdir()) == []
