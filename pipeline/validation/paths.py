"""Makes the paths in a configuration absolute, and expands `~` and variables of the environment in them."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from pipeline.config import Config, StageOverrides
from pipeline.errors import ConfigError

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def with_absolute_paths(config: Config) -> Config:
    """The configuration with absolute paths of all inputs; `run_dir` stays relative until it is created.

    Raises:
        ConfigError: a home directory is unknown, a variable is not set, or a path is a URL.
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
    initial = config.init_from.model_copy(update={"path": _absolute("init_from.path", config.init_from.path)})
    stages = {index: _with_absolute_source(index, own) for index, own in config.stages.items()}
    changes: dict[str, Any] = {
        "data": data,
        "init_from": initial,
        "stages": stages,
        "evaluation": evaluation.model_copy(update={"transfer": transfer, "corruptions": corruptions}),
        "run_dir": config.run_dir and _at_home("run_dir", config.run_dir),
    }
    return config.model_copy(update=changes)


def _with_absolute_source(index: int, own: StageOverrides) -> StageOverrides:
    path = own.init_from.get("path")
    if path is None:
        return own
    absolute = _absolute(f"stages.{index}.init_from.path", path)
    return own.model_copy(update={"init_from": {**own.init_from, "path": absolute}})


def _absolute(key: str, path: str | None) -> str | None:
    if path is None:
        return None
    if "://" in path:
        problem = f"'{path}' is the address of something on a network, and a folder is wanted"
        raise ConfigError(key, problem, "Copy or mount it, and give its path")
    return os.path.abspath(_at_home(key, _expanded(key, path)))


def _expanded(key: str, path: str) -> str:
    """With variables of the environment, `$NAME` or `${NAME}`, replaced: hosts may have their data in other places."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            problem = f"the variable {name} in '{path}' is not set on {platform.node()}"
            raise ConfigError(key, problem, f"Set {name} in the environment there, or give the path")
        return os.environ[name]

    return VARIABLE.sub(value, path)


def _at_home(key: str, path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ConfigError(key, f"the home directory in '{path}' is not known", "Give the whole path") from None
