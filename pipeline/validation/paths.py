"""Makes the paths in a configuration absolute, and expands `~`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConfigError


def with_absolute_paths(config: Config) -> Config:
    """The configuration with absolute paths of all inputs; `run_dir` stays relative until it is created.

    Raises:
        ConfigError: a home directory is unknown, or a path is a URL.
    """
    data = config.data.model_copy(update={"root": _absolute("data.root", config.data.root)})
    evaluation = config.evaluation
    transfer = tuple(
        other.model_copy(update={"root": _absolute(f"evaluation.transfer.{number}.root", other.root)})
        for number, other in enumerate(evaluation.transfer)
    )
    corruptions = evaluation.corruptions.model_copy(
        update={
            key: _absolute(f"evaluation.corruptions.{key}", getattr(evaluation.corruptions, key))
            for key in ("folder", "baseline")
        }
    )
    changes: dict[str, Any] = {
        "data": data,
        "evaluation": evaluation.model_copy(update={"transfer": transfer, "corruptions": corruptions}),
        "run_dir": config.run_dir and _at_home("run_dir", config.run_dir),
    }
    return config.model_copy(update=changes)


def _absolute(key: str, path: str | None) -> str | None:
    if path is None:
        return None
    if "://" in path:
        problem = f"'{path}' is the address of something on a network, and a folder is wanted"
        raise ConfigError(key, problem, "Copy or mount it, and give its path")
    return os.path.abspath(_at_home(key, path))


def _at_home(key: str, path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ConfigError(key, f"the home directory in '{path}' is not known", "Give the whole path") from None
