"""A plan, or two settings side by side, computed in a process of its own (`launch.plan.answer_process`).

{"config": "...", "request": {...}, "changed": "..." or null}  ->  {"found": {...}} or {"problem": "..."}
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from launch.partition.findings import PlanFindings, WhatIfFindings
from launch.partition.request import PlanRequest
from launch.plan.answer_process import AnswerProcess, answer_one
from pipeline.config import Config
from pipeline.errors import UserError, first_line

SECONDS = 600.0
"""Limit for the answer, which takes some seconds, and a minute more where times are measured."""
_REQUEST, _PLAN, _WHAT_IF = TypeAdapter(PlanRequest), TypeAdapter(PlanFindings), TypeAdapter(WhatIfFindings)


class PlanProcess(AnswerProcess):
    """Starts the process at once, so that it loads while others work; a context manager, which ends it."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__("launch.partition.plan_child", threads)

    def plan(self, config: Config, request: PlanRequest) -> PlanFindings:
        """As `launch.partition.planning.plan_for`.

        Raises:
            UserError: no plan can be made, or not in `SECONDS`.
        """
        return _PLAN.validate_python(self._answer_to(config, request, None))

    def what_if(self, config: Config, changed: Config, request: PlanRequest) -> WhatIfFindings:
        """As `launch.partition.planning.what_if`; raises as `plan`."""
        return _WHAT_IF.validate_python(self._answer_to(config, request, changed))

    def _answer_to(self, config: Config, request: PlanRequest, changed: Config | None) -> Any:
        question = {
            "config": config.model_dump_json(),
            "request": asdict(request),
            "changed": None if changed is None else changed.model_dump_json(),
        }
        answer = self.ask(question, "the plan", SECONDS)
        if "problem" in answer:
            raise UserError(answer["problem"])
        return answer["found"]


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from launch.partition.planning import plan_for, what_if

    try:
        config, request = (
            Config.model_validate_json(question["config"]),
            _REQUEST.validate_python(question["request"]),
        )
        if question["changed"] is None:
            return {"found": asdict(plan_for(config, request))}
        return {"found": asdict(what_if(config, Config.model_validate_json(question["changed"]), request))}
    except UserError as error:
        return {"problem": str(error)}
    except Exception as error:  # whatever code of the user's raises
        return {"problem": f"no plan can be made: {first_line(error)[:200]}"}


def main() -> None:
    """Answer the one question on the standard input."""
    import launch.partition.planning  # noqa: F401  # loads while the parent is busy

    answer_one(_answer)


if __name__ == "__main__":
    main()
