"""Which values every start of a run was given, kept in `provenance.json`: so an edit of `config.yaml` is seen later.

    start 1 (from step 0)    all values that decide bits
    start 2 (from step 40)   nothing: they were the same
    start 3 (from step 60)   all again: `replicas` was another

Values are compared as they are written, not as a later version understands them: it may have more keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launch.prepare.config_differences import changes_no_bit, flatten
from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.config.secrets import values_without_secrets
from pipeline.ordinary_files import read_whole
from pipeline.validation.loading import MAX_BYTES, dump_config, parse_values
from pipeline.validation.pydantic_errors import shown
from workers.run.files import RunDir

SHOWN = 5
"""Keys that a sentence names."""
_NOTHING = StageOverrides().model_dump(mode="json")
_UNKNOWN = object()


def recorded_values(config: Config, starts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The values that decide bits, by their dotted keys; None where they are those of the starts before."""
    values = _deciding(dump_config(config))
    return None if values == values_of(starts) else values


def values_of(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The values of the last of these starts; None where none was recorded."""
    kept = (start.get("config") for start in reversed(starts))
    return next((values for values in kept if isinstance(values, dict)), None)


def edits(run: RunDir, starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was changed in `config.yaml` since the last start, a sentence for each key; empty where none is recorded.

    Raises:
        ValueError, OSError: the file cannot be read.
    """
    recorded = values_of(starts)
    if recorded is None:
        return []
    return changes(recorded, _deciding(read_whole(run.config, MAX_BYTES, run.path).decode()))


def since(starts: Sequence[Mapping[str, Any]], step: int) -> list[str]:
    """What later starts were given otherwise than the one that trained `step`, a sentence for each key."""
    then, now = values_of([start for start in starts if trains(start, step)]), values_of(starts)
    return [] if then is None or now is None else changes(then, now)


def trains(start: Mapping[str, Any], step: int) -> bool:
    """Whether a start begins at or before a step, counted from 0."""
    first = start.get("step")
    return isinstance(first, int) and first <= step


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`key was A, is B` for every key with another value, the first of many."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    said = [f"{key} was {shown(before.get(key))}, is {shown(after.get(key))}" for key in keys[:SHOWN]]
    return [*said, *([f"{len(keys) - SHOWN} more keys"] if len(keys) > SHOWN else [])]


def _deciding(text: str) -> dict[str, Any]:
    values = flatten(values_without_secrets(parse_values(text)))
    return {key: value for key, value in values.items() if not (changes_no_bit(key) or _overrides_nothing(key, value))}


def _overrides_nothing(key: str, value: Any) -> bool:
    """Whether a key of one stage says what it would be without a section of that stage."""
    section, _, rest = key.partition(".")
    return section == "stages" and value == _NOTHING.get(rest.partition(".")[2], _UNKNOWN)
