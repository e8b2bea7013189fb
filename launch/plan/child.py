"""The account of a run, computed in a process of its own.

That process loads torch while this one reads the data set, has a limit of time, and may crash in code of the user's.
One line of JSON goes in, and one comes out:

    {"config": "...", "placements": [...], "data": ..., "sizes": ...}
    ->  {"recompute": {"1": "units", ...}, "devices": [...], "account": ...} or {"problem": "..."}
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Self

from pydantic import TypeAdapter

from launch.plan.account import DataFacts, RunAccount
from launch.plan.devices import DeviceAccount
from launch.prepare.placement import Placement
from launch.prepare.recompute import undecided, with_recompute
from pipeline.config import Config
from pipeline.errors import UserError, first_line
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import last_answer, read_line, write_line

SECONDS = 600.0
"""Limit for the computation, which takes a second or two for each process of the run where nothing else runs."""
_ACCOUNT = TypeAdapter(RunAccount)
_PLACEMENTS = TypeAdapter(tuple[Placement, ...])
_DATA = TypeAdapter(DataFacts)


class AccountProcess:
    """Starts the process at once, so that it loads while others work; a context manager, which ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            interpreter("launch.plan.child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=process_environment(threads=1),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    def account(
        self,
        config: Config,
        placements: Sequence[Placement],
        data: DataFacts,
        sizes: Mapping[str, int] | None,
    ) -> tuple[Config, tuple[DeviceAccount, ...], RunAccount]:
        """As `launch.plan.compute.checked_run`.

        Raises:
            UserError: it cannot be computed, or not in `SECONDS`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {
            "config": config.model_dump_json(),
            "placements": _PLACEMENTS.dump_python(tuple(placements), mode="json"),
            "data": asdict(data),
            "sizes": None if sizes is None else dict(sizes),
        }
        with suppress(OSError):  # it has ended, which the answer will show
            write_line(self._process.stdin.fileno(), question)
        last = last_answer(self._process.stdout.fileno(), SECONDS, self._process.kill, self._process.wait)
        if (answer := last.message) is None:
            why = f"it takes longer than {SECONDS:g} s" if last.late else "its process ended"
            raise UserError(f"what the run needs was not computed: {why}")
        if "problem" in answer:
            raise UserError(f"what the run needs cannot be computed: {answer['problem']}")
        decided = with_recompute(config, {int(index): value for index, value in answer["recompute"].items()})
        devices = tuple(map(DeviceAccount.from_message, answer["devices"]))
        return decided, devices, _ACCOUNT.validate_python(answer["account"])


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from launch.plan.compute import checked_run

    try:
        config = Config.model_validate_json(question["config"])
        placements = _PLACEMENTS.validate_python(question["placements"])
        data = _DATA.validate_python(question["data"])
        decided, devices, account = checked_run(config, placements, data, question["sizes"])
        recompute = {str(index): decided.stage(index).memory.recompute for index in undecided(config)}
        held = [device.to_message() for device in devices]
        return {"recompute": recompute, "devices": held, "account": asdict(account)}
    except Exception as error:  # whatever code of the user's raises
        return {"problem": first_line(error)[:200]}


def main() -> None:
    """Answer the one question on the standard input; what code of the user's prints goes nowhere."""
    import launch.plan.compute  # noqa: F401  # loads while the parent is busy

    answers = os.dup(1)
    os.dup2(2, 1)
    with suppress(EOFError, OSError):  # the parent needs no answer any more
        write_line(answers, _answer(read_line(sys.stdin.fileno())))


if __name__ == "__main__":
    main()
