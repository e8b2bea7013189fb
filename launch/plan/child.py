"""The account of a run, computed in a process of its own.

That process loads torch while this one reads the data set, has a limit of time, and may crash in code of the user's.
One line of JSON goes in, and one comes out:

    {"config": "...", "placements": [...], "data": ..., "sizes": ...}
    ->  {"recompute": {"1": "units", ...}, "devices": [...], "account": ...} or {"problem": "..."}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from launch.plan.account import DataFacts, RunAccount
from launch.plan.answer_process import AnswerProcess, answer_one
from launch.plan.devices import DeviceAccount
from launch.prepare.placement import Placement
from launch.prepare.recompute import undecided, with_recompute
from pipeline.config import Config
from pipeline.errors import UserError, first_line

SECONDS = 600.0
"""Limit for the computation, which takes a second or two for each process of the run where nothing else runs."""
_ACCOUNT = TypeAdapter(RunAccount)
_PLACEMENTS = TypeAdapter(tuple[Placement, ...])
_DATA = TypeAdapter(DataFacts)


class AccountProcess(AnswerProcess):
    """Starts the process at once, so that it loads while others work; a context manager, which ends it."""

    def __init__(self) -> None:
        super().__init__("launch.plan.child")

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
        question = {
            "config": config.model_dump_json(),
            "placements": _PLACEMENTS.dump_python(tuple(placements), mode="json"),
            "data": asdict(data),
            "sizes": None if sizes is None else dict(sizes),
        }
        answer = self.ask(question, "what the run needs", SECONDS)
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
    """Answer the one question on the standard input."""
    import launch.plan.compute  # noqa: F401  # loads while the parent is busy

    answer_one(_answer)


if __name__ == "__main__":
    main()
