"""From a YAML file and dotted overrides to a validated `Config`, or one readable error.

The file is parsed, overrides such as `objective.lambd=0.005` are applied, and pydantic validates the result.
`pydantic_errors` rewrites its errors, and `networks` and `combinations` have what concerns several sections.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config, Section
from pipeline.config.kinds import annotation_at, merged_values, section_for
from pipeline.config.secrets import without_secrets
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import open_to_read
from pipeline.validation.idle_keys import idle_keys
from pipeline.validation.json_values import MAX_VALUES, JsonValues
from pipeline.validation.networks import checked
from pipeline.validation.paths import with_absolute_paths
from pipeline.validation.pydantic_errors import explain, shown
from pipeline.validation.trust import check_trust

MAX_BYTES = 256 * 1024
"""Largest configuration file; the largest in use has a few thousand bytes."""

_MERGE_TAG = "tag:yaml.org,2002:merge"
# A tag on a value that does not fit it raises almost any built-in error: !!bool maybe, !!int '', 2020-99-99.
_YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError)


if TYPE_CHECKING:
    from yaml import SafeLoader
else:  # PyYAML may have been built without libyaml, which reads the same ten times as fast
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(SafeLoader):
    """YAML 1.1 with three changes.

    `1e-6` is a number. A duplicate key is an error, where YAML would silently keep the last. The size of merges
    is limited.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem="'<<' merges too much", problem_mark=node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value}' occurs twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader` would take for a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
        list("-+0123456789."),
    )


@dataclass(frozen=True)
class LoadOptions:
    """How a configuration file is loaded.

    Args:
        build: whether classes and functions that it names may be imported and called.
        trusted: whether that is allowed also if the file belongs to another user.
        trackers: whether trackers will be started.
        run: the run directory of the file, in which no link is followed; None for any other file.
    """

    build: bool = True
    trusted: bool = True
    trackers: bool = False
    run: Path | None = None


def load_config(path: str | Path, overrides: Sequence[str] = (), options: LoadOptions = LoadOptions()) -> Config:
    """Read `path`, apply `key=value` overrides in order and validate.

    Args:
        path: of the file.
        overrides: applied to its values.
        options: how the file is loaded.

    Raises:
        UserError: the file cannot be read, is not a YAML mapping, or belongs to another user and names functions.
        ConfigError: a key or value is not accepted.
    """
    return _load(path, overrides, options)[0]


def load_for_start(
    path: str | Path, overrides: Sequence[str] = (), options: LoadOptions = LoadOptions()
) -> tuple[Config, list[str]]:
    """As `load_config`, for the start of a run; also returns one sentence per reason why keys have no effect.

    Raises:
        UserError, ConfigError: as `load_config`; also for `data.root` with a data set that reads no folder.
    """
    config, given = _load(path, overrides, options)
    return config, idle_keys(config, given)


def _load(path: str | Path, overrides: Sequence[str], options: LoadOptions) -> tuple[Config, dict[str, Any]]:
    values, owner = _read_mapping(Path(path), options.run)
    for override in overrides:
        apply_override(values, override)
    config = _validate(values)
    if options.build and not options.trusted:
        check_trust(config, Path(path), owner, options.trackers)
    return with_absolute_paths(checked(config, options.build)), values


def parse_values(text: str) -> dict[str, Any]:
    """The values of YAML that a run has written, not validated; raises `ValueError` if it is anything else."""
    try:
        return JsonValues().mapping(yaml.load(text, Loader=_Loader), ())  # noqa: S506 - a SafeLoader
    except (*_YAML_ERRORS, ConfigError) as error:
        raise ValueError("not the configuration of a run") from error


def parse_config(values: dict[str, Any], build: bool = True) -> Config:
    """Validate a nested mapping; raises `ConfigError` for the first error."""
    return checked(_validate(values), build)


def _validate(values: dict[str, Any]) -> Config:
    try:
        return Config.model_validate_json(json.dumps(JsonValues().mapping(values, ())))
    except ValidationError as error:
        details = error.errors(include_url=False)
        # For a misspelt key pydantic reports first that the correct one is missing.
        raise explain(next((detail for detail in details if detail["type"] != "missing"), details[0])) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    return _dump(config.model_dump(mode="json"))


def dump_without_secrets(config: Config) -> str:
    """As `dump_config`, without possible secrets (`pipeline.config.secrets`)."""
    return _dump(without_secrets(config))


def _dump(values: dict[str, Any]) -> str:
    text: str = yaml.dump(_kinds_first(values), Dumper=_Dumper, sort_keys=False)
    return text


def _kinds_first(value: Any) -> Any:
    """Sections with the key first that decides which others exist."""
    if not isinstance(value, dict):
        return value
    return {key: _kinds_first(value[key]) for key in sorted(value, key=lambda key: key not in ("kind", "backbone"))}


def _read_mapping(path: Path, run: Path | None = None) -> tuple[dict[str, Any], int]:
    """The values in the file, and the ID of its owner."""
    try:
        # A user's own file may be a pipe, such as a shell's <(...).
        with path.open("rb") if run is None else open_to_read(path, run) as file:
            data, owner = file.read(MAX_BYTES + 1), os.fstat(file.fileno()).st_uid
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"configuration file '{path}' does not exist. Give the path of a YAML file") from None
    except IsADirectoryError:
        raise UserError(f"configuration file '{path}' is a folder. Give the path of a YAML file in it") from None
    except UnicodeDecodeError as error:
        problem = f"is not text (byte {error.start} is not UTF-8)"
        raise UserError(f"configuration file '{path}' {problem}. Give a YAML file saved as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a path that holds a null byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"configuration file '{path}' cannot be read ({reason}). Give a readable YAML file") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"configuration file '{path}' has more than {MAX_BYTES} bytes. Give the YAML file of a run")
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except _YAML_ERRORS as error:
        where = f"'{path}'{_position_of(error)}"
        raise UserError(f"{where} is not valid YAML: {_problem(error)}. Correct the file") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"'{path}' holds a {type(values).__name__}, not a mapping. Write 'key: value' lines, as in configs/"
        )
    return JsonValues().mapping(values, ()), owner


def _position_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, yaml.YAMLError | ValueError):
        return "a value does not fit the tag before it"
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    mark, opened = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    return (
        f"{problem}, in the part opened in line {opened.line + 1}"
        if mark and opened and opened.line != mark.line
        else problem
    )


def apply_override(values: dict[str, Any], override: str) -> None:
    """Apply one `key=value` to a nested mapping; raises `ConfigError`, or `UserError` where it has not that form."""
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise UserError(f"override '{override}' is not of the form key=value. Example: objective.lambd=0.005")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except _YAML_ERRORS:
        raise ConfigError(key, f"{shown(text)} is not a valid YAML value", "Quote it if it is text") from None
    path = key.strip().split(".")
    *parents, leaf = path
    value = JsonValues().value(value, tuple(path))
    section: Any = values
    for depth, name in enumerate(parents):
        if section.get(name) is None or (
            name == "init_from" and isinstance(section[name], str)
        ):  # a path stands for it
            section[name] = {"path": section[name]} if section.get(name) else {}
        section = section[name]
        if not isinstance(section, dict):
            above = ".".join(parents[: depth + 1])
            problem = f"'{above}' is the value {shown(section)}, not a section"
            raise ConfigError(key, problem, f"Give {above}=VALUE instead")
    kinds = _annotation_of(parents)
    if leaf in ("kind", "backbone") and kinds is not None:  # drops keys that the file sets for another kind
        value_now = merged_values(kinds, section, {leaf: value})
        section.clear()
        section.update(value_now)
    section[leaf] = value


def _annotation_of(path: Sequence[str]) -> Any:
    """The annotation of the section at `path`; None if there is no such section."""
    section: type[Section] | None = Config
    annotation: Any = None
    for name in path:
        annotation = annotation_at(section, name) if section else None
        section = section_for(annotation, {}) if annotation is not None else None
    return annotation
