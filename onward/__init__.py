"""Onward from Python: the command line's equal, because the command line calls it.

    run = onward.train("quickstart", train__epochs=2)
    trained = onward.load(run)
    trained.metrics, trained.evaluate(), trained.backbone(block=3), trained.features(images)

What it offers is imported when it is first asked for, so that `import onward` costs nothing and loads no torch.

- `command_process.py`: the process in which `onward.train` and the others do their work
- `config.py`: `onward.Config`: the configuration of a run with its types, read from a file or a preset
- `here.py`: training, resuming and evaluating in this process, as its only task: what the command line does
- `notebook.py`: what a notebook shows of a run while a cell waits for it
- `objects.py`: Python objects in the place of names: a network, a loss, a data set, trackers
- `objects_run.py`: a run with Python objects, in this process
- `overrides.py`: keys of a configuration as Python's keyword arguments
- `owners.py`: whether `launch`, `pipeline` and `workers` are Onward's, looked at by the first import
- `planning.py`: `plan`: the best cuts and replicas for so many GPUs, as values
- `results.py`: `check`, `evaluate`, `compare`, `select`, `verify`, `bisect`, `replay`: their findings, as values
- `run.py`: a run that a Python program has started: wait for it, follow it, stop it
- `steps.py`: the steps of a run as they happen
- `trained.py`: `onward.load`: what a run has learned, as columns, modules and features
- `training.py`: `onward.train` and `onward.resume`
- `__main__.py`: the command `onward`, also as `python -m onward`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from onward.owners import check_owners

check_owners()

if TYPE_CHECKING:
    from onward.config import Config
    from onward.planning import plan
    from onward.results import bisect, check, compare, evaluate, replay, select, verify
    from onward.run import Run
    from onward.steps import Step
    from onward.trained import Trained, Transform, load
    from onward.training import resume, train
    from pipeline.errors import ConfigError, OnwardError, TrainingError, UserError
    from pipeline.objectives import Embeddings, Objective
    from workers.observing.trackers import Tracker

    __version__: str

__all__ = [
    "Config",
    "ConfigError",
    "Embeddings",
    "Objective",
    "OnwardError",
    "Run",
    "Step",
    "Tracker",
    "Trained",
    "TrainingError",
    "Transform",
    "UserError",
    "__version__",
    "bisect",
    "check",
    "compare",
    "evaluate",
    "load",
    "plan",
    "replay",
    "resume",
    "select",
    "train",
    "verify",
]

_HOMES = {
    "onward.config": ("Config",),
    "onward.planning": ("plan",),
    "onward.results": ("bisect", "check", "compare", "evaluate", "replay", "select", "verify"),
    "onward.run": ("Run",),
    "onward.steps": ("Step",),
    "onward.trained": ("Trained", "Transform", "load"),
    "onward.training": ("resume", "train"),
    "pipeline.errors": ("ConfigError", "OnwardError", "TrainingError", "UserError"),
    "pipeline.objectives": ("Embeddings", "Objective"),
    "workers.observing.trackers": ("Tracker",),
}
"""Where each name is defined."""


if not TYPE_CHECKING:  # which would have every name, also those that are misspelt

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("onward")
        for home, names in _HOMES.items():
            if name in names:
                value: object = getattr(import_module(home), name)
                globals()[name] = value  # asked for once
                return value
        raise AttributeError(f"module 'onward' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
