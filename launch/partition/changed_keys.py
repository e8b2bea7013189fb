"""The keys that a plan changes, as nested values that can be pasted into the YAML of the run."""

from __future__ import annotations

from typing import Any

from launch.prepare.config_differences import flatten
from pipeline.config import Config

OF_STAGE, UNSET = "stages.", object()


def changed_keys(before: Config, after: Config) -> dict[str, Any]:
    """Nested values with which `before` becomes `after`; of stages all that differs from the run's own keys.

    A key of a stage that is gone in `after` is given with the value that holds for the stage then, since what is pasted
    removes nothing.
    """
    old, new = (flatten(_given(config)) for config in (before, after))
    values = {key: value for key, value in new.items() if old.get(key) != value}
    values = {key: value for key, value in values.items() if key in old or new.get(_common(key), UNSET) != value}
    for key in old.keys() - new.keys():
        if key.startswith(OF_STAGE) and old[key] is not None and (value := _in_force(after, key)) != old[key]:
            values[key] = value
    nested: dict[Any, Any] = {}
    for key, value in values.items():
        *parents, leaf = [int(name) if name.isdecimal() else name for name in key.split(".")]
        section = nested
        for name in parents:
            section = section.setdefault(name, {})
        section[leaf] = value
    return nested


def _given(config: Config) -> dict[str, Any]:
    """All keys, but of stages only those that have a value."""
    values = config.model_dump(mode="json")
    plain: tuple[Any, ...] = (None, False, {})
    values["stages"] = {
        index: {key: value for key, value in own.items() if value not in plain}
        for index, own in values["stages"].items()
    }
    return values


def _common(key: str) -> str:
    """The run's own key for one of a stage; the key itself where it has none, or is no stage's."""
    return key.split(".", 2)[2] if key.startswith(OF_STAGE) else ""


def _in_force(config: Config, key: str) -> Any:
    """What a stage has for `stages.K.SECTION.KEY`; None where there is no such stage or key any more."""
    index, *names = key.removeprefix(OF_STAGE).split(".")
    if int(index) > config.num_stages:
        return None
    value: Any = config.stage(int(index)).model_dump(mode="json")
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
