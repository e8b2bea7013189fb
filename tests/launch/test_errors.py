"""Whatever ends a command is one line with what to do, an exit code, and no traceback but in a file it names."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, REMEDIES, in_one_line
from pipeline.errors import ConfigError, TrainingError, UserError

WHERE = r" \(details in (\S+)\)"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_our_own_errors_say_everything_themselves(tmp_path: Path) -> None:
    assert in_one_line(UserError("this\nand that")) == ("error: this and that", EXIT_BAD_INPUT)
    assert in_one_line(ConfigError("seed", "got x", "Give 1")) == ("error: seed: got x. Give 1", EXIT_BAD_INPUT)
    assert in_one_line(TrainingError("stage 2 failed")) == ("error: stage 2 failed", EXIT_FAILED)
    assert in_one_line(KeyboardInterrupt()) == ("interrupted", EXIT_INTERRUPTED)
    assert os.listdir(tmp_path) == [], "and need no traceback"


@pytest.mark.parametrize("number", [*REMEDIES, errno.EXDEV])
def test_an_error_of_the_system_names_the_path_and_a_remedy(number: int) -> None:
    text, code = in_one_line(raised(OSError(number, os.strerror(number), "/some/file")))
    found = re.fullmatch(rf"error: '/some/file': {re.escape(os.strerror(number))}\. (.+?){WHERE}", text)
    assert found, text
    assert found[1] == REMEDIES.get(number, "The system does not say more")
    assert code == EXIT_BAD_INPUT
    assert "Traceback" in Path(found[2]).read_text()


def test_of_two_paths_both_are_named() -> None:
    text, _ = in_one_line(raised(OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b")))
    assert text.startswith("error: '/a' and '/b': Invalid cross-device link. ")


def test_what_a_terminal_would_act_on_is_spelled_out() -> None:
    name = "cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.\udcff.jpg"
    text, _ = in_one_line(UserError(f"image '{name}' cannot be decoded"))
    assert text == r"error: image 'cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.\udcff.jpg' cannot be decoded"
    assert str(ConfigError("a", name, "b")).isprintable()
    text, _ = in_one_line(raised(OSError(errno.ENOENT, "No such file", name)))
    assert text.isprintable()
    text, _ = in_one_line(raised(ValueError(name)))
    assert text.isprintable()
    found = re.search(WHERE, text)
    assert found
    assert "\x1b" not in Path(found[1]).read_text()


def test_memory_that_ran_out_in_any_library_is_a_sentence() -> None:
    torch_says = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate 4 B"
    for error in (MemoryError(), MemoryError("Unable to allocate 8.00 PiB"), RuntimeError(torch_says)):
        text, code = in_one_line(raised(error))
        assert re.fullmatch(rf"error: memory ran out( \(.*\))?\. Free some{WHERE}", text), text
        assert code == EXIT_FAILED


def test_a_fault_of_the_program_is_called_one() -> None:
    text, code = in_one_line(raised(ZeroDivisionError("division\nby zero")))
    found = re.fullmatch(rf"error: a fault of the program: ZeroDivisionError: division by zero{WHERE}", text)
    assert found, text
    assert code == EXIT_FAILED
    assert "in raised" in Path(found[1]).read_text()


def test_memory_that_ran_out_is_no_fault_of_the_program() -> None:
    text, code = in_one_line(raised(MemoryError("1 GiB")))
    assert text.startswith("error: memory ran out (1 GiB). Free some")
    assert code == EXIT_FAILED


def test_a_file_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert in_one_line(raised(OSError(errno.EIO, "Input/output error")))[0] == (
        "error: Input/output error. The disk or the network behind it fails"
    )
