"""What comes through a pipe: objects, whole, of bounded size; anything else is an error that says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pipeline.errors import TrainingError
from tests.waiting import LIMIT
from workers.run import json_lines
from workers.run.json_lines import LastAnswer, LineReader, last_answer, read_line, write_line


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):  # a test has closed it
            os.close(end)


def test_objects_come_in_order_until_the_writer_has_gone(pipe: tuple[int, int]) -> None:
    reader = LineReader(pipe[0])
    write_line(pipe[1], {"number": 1})
    write_line(pipe[1], {"number": 2})
    assert reader.read(LIMIT) == [{"number": 1}, {"number": 2}]
    os.write(pipe[1], b'{"number": ')
    assert (reader.read(), reader.closed) == ([], False)
    os.write(pipe[1], b"3}\n")
    os.close(pipe[1])
    assert (reader.read(None), reader.closed) == ([{"number": 3}], True)


@pytest.mark.parametrize("line", [b"[1]\n", b"{\n", b"\xff\n", b"[" * 10_000 + b"\n"])
def test_a_line_that_is_no_object_is_refused(line: bytes, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], line)
    with pytest.raises(TrainingError, match="no JSON object"):
        LineReader(pipe[0]).read(LIMIT)


def test_a_line_without_an_end_is_refused(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LINE_BYTES", 10)
    os.write(pipe[1], b"x" * 100)
    with pytest.raises(TrainingError, match="more than 10 bytes"):
        read_line(pipe[0])
    with pytest.raises(TrainingError, match="more than 10 bytes"):
        LineReader(pipe[0]).read()


def test_a_line_that_breaks_off_is_an_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b'{"number": 1')
    os.close(pipe[1])
    with pytest.raises(EOFError):
        read_line(pipe[0])


@pytest.mark.parametrize(
    ("sent", "closes", "expected"),
    [
        (b'{"a": 1}\n', False, LastAnswer({"a": 1}, False, -9)),
        (b'{"a": 1}\n', True, LastAnswer({"a": 1}, False, -9)),
        (b'{"a": 1', True, LastAnswer(None, False, -9)),
        (b'{"a": 1', False, LastAnswer(None, True, -9)),
    ],
    ids=["answered", "answered and ended", "ended", "late"],
)
def test_a_child_is_ended_once_it_has_answered_or_will_not(sent: bytes, closes: bool, expected: LastAnswer) -> None:
    reader, writer = os.pipe()
    os.write(writer, sent)
    if closes:
        os.close(writer)
    asked: list[str] = []
    found = last_answer(reader, 0.05, lambda: asked.append("kill"), lambda: asked.append("wait") or -9)
    assert (found, asked) == (expected, ["kill", "wait"])
    os.close(reader)
    if not closes:
        os.close(writer)


def test_a_child_that_sends_no_json_is_ended_too() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"hello\n")
    asked: list[str] = []
    with pytest.raises(TrainingError, match="no JSON object"):
        last_answer(reader, 1.0, lambda: asked.append("kill"), lambda: asked.append("wait") or 0)
    assert asked == ["kill", "wait"]
    os.close(reader)
    os.close(writer)
