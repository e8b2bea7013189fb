"""The process in which a Python program's `onward.train` and the others do their work: started by `OwnProcess`.

It is the command line without arguments: it reads what to do as JSON, and says on a pipe when the run is prepared and
how it has ended. When the program is gone it stops as by SIGTERM, so that a kernel that crashes leaves a snapshot.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch.errors import in_a_sentence, in_one_line
from launch.processes.child import listen_to_parent, read_start
from launch.processes.own_process import error_as_message
from onward import here
from pipeline.validation.loading import parse_config
from pipeline.validation.paths import with_absolute_paths
from workers.control.start_messages import CommandStart
from workers.observing.terminal import safe_stream
from workers.run.environment import clean_environment
from workers.run.json_lines import write_line

LOOK_SECONDS = 1.0
"""Between two looks whether the program is still there: a process that it forked may hold the pipe open."""


def main(answers: int) -> int:
    """Do what the standard input asks for; returns the exit code."""
    clean_environment()
    safe_stream.open_standard_streams()
    safe_stream.survive_lost_output()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the run has its own way to stop
    start = read_start(CommandStart)
    _stop_with_program(start.parent)

    def report(message: dict[str, Any]) -> None:
        with suppress(OSError):  # nobody listens any more
            write_line(answers, message)

    try:
        code = _do(start, lambda run: report({"prepared": [str(run.run.path), run.start_step]}))
    except (Exception, KeyboardInterrupt) as error:
        _, code = in_one_line(error)
        report({"error": error_as_message(error, in_a_sentence(error))})
    report({"ended": code})
    return code


def _do(start: CommandStart, prepared: here.Prepared) -> int:
    if start.command == "evaluate":
        return here.evaluate(Path(start.run), start.overrides, start.trusted)
    if start.command == "resume":
        return here.resume(Path(start.run), start.overrides, start.trusted, start.force, prepared)
    config = with_absolute_paths(parse_config(json.loads(start.config)))
    return here.train(config, start.name, start.notes, start.force, prepared)


def _stop_with_program(parent: int) -> None:
    """Stop this process when the program asks for it or is gone; once it was asked, the latter adds no haste."""
    asked = threading.Event()

    def stop(message: dict[str, Any]) -> None:
        asked.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def gone() -> None:
        if not asked.is_set():
            stop({})

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        gone()

    listen_to_parent(stop, gone)
    threading.Thread(target=look, name="program", daemon=True).start()


if __name__ == "__main__":
    exit_code = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
