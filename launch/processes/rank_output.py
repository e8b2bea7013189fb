"""What a rank says to the user: what all ranks of its host would say is said by the first of them."""

from __future__ import annotations

import os
import time

from launch.errors import in_one_line, print_error
from launch.processes.error_file import write_error_file
from launch.processes.start_check import StartRefused
from workers.observing.terminal.verbosity import say
from workers.topology.torchrun import RanksApart

SPEAK_SECONDS = 10.0
"""How long a rank waits before it ends, for torchrun then ends all others and the first of its host is to print why
before. Its own end ends this wait, so that it costs nothing; on a busy machine it may take seconds."""


def say_once(sentence: str) -> None:
    """Print what all ranks of this host would say."""
    if first_of_host():
        say(sentence)


def report(error: BaseException) -> int:
    """Print in one line what ended this rank, unless another rank of this host does; returns the exit code."""
    text, code = in_one_line(error)
    write_error_file(text)
    if isinstance(error, StartRefused | RanksApart) and not first_of_host():
        time.sleep(SPEAK_SECONDS)
    else:
        print_error(text)
    return code


def first_of_host() -> bool:
    """Whether this rank is the first of those of its host."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
