"""Main program of a trial in a new interpreter: see `trial.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.config import Config
from workers.determinism.child import Note, answer_task
from workers.determinism.step import Trial
from workers.determinism.twice import WORKS


def work(task: Mapping[str, Any], note: Note) -> Any:
    """Do what `trial` has asked for."""
    config = Config.model_validate_json(task["config"])
    return WORKS[task["work"]](config, Trial(**task["trial"]), torch.device(task["device"]), note)


if __name__ == "__main__":
    answer_task(work)
