"""From a YAML file and dotted overrides to a validated `Config`, or one readable error.

The file is parsed, overrides such as `objective.lambd=0.005` are laid over it, and pydantic
validates the result. `config_errors` rewrites its errors, `config_checks` has what no section can check alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config, Section
from pipeline.config.kinds import annotation_at, merged_values, section_for
from pipeline.config.secrets import without_secrets
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import open_to_read
from pipeline.validation.combinations import check_together
from pipeline.validation.idle_keys import idle_keys
from pipeline.validation.paths import with_whole_paths
from pipeline.validation.pydantic_errors import explain, shown
from pipeline.validation.trust import check_trust

MAX_BYTES = 256 * 1024
"""Of a configuration file; the largest in use has a few thousand."""
MAX_VALUES = 20_000
"""Values and sections, aliases resolved: a few lines of YAML can stand for more than fits into memory."""
MAX_DEPTH = 20
"""No section is as deep; a YAML alias may even hold itself."""
MAX_INT_BITS = 1024

_MERGE_TAG = "tag:yaml.org,2002:merge"
# A tag on a value that does not fit it ends in almost any of Python's own errors: !!bool maybe, !!int '', 2020-99-99.
_YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with three traps taken out.

    `1e-6` is a number, as people who write learning rates mean it. A key that stands twice is an
    error: YAML would silently keep the last. Merges of merges may not grow without end.
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
                        problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Reading:
    """What a configuration is read for, beside a start of the user's own.

    Args:
        build: what it names may be imported and built; False where it is only looked at.
        trusted: also where the file belongs to somebody else.
        trackers: they are to be started too.
        run: the run directory whose file it is: then no link may lead to it.
    """

    build: bool = True
    trusted: bool = True
    trackers: bool = False
    run: Path | None = None


def load_config(path: str | Path, overrides: Sequence[str] = (), reading: Reading = Reading()) -> Config:
    """Read `path`, apply `key=value` overrides in order and validate.

    Args:
        path: of the file.
        overrides: laid over it.
        reading: what for.

    Raises:
        UserError: the file cannot be read or is not a YAML mapping, or is not trusted with what it names.
        ConfigError: a key or value that is not accepted.
    """
    return _loaded(path, overrides, reading)[0]


def load_for_start(
    path: str | Path, overrides: Sequence[str] = (), reading: Reading = Reading()
) -> tuple[Config, list[str]]:
    """As `load_config`, for a run that is to start; also a sentence for keys that were given and have no effect.

    Raises:
        UserError, ConfigError: as `load_config`; also for a key that would have another effect than the user thinks.
    """
    config, given = _loaded(path, overrides, reading)
    return config, idle_keys(config, given)


def _loaded(path: str | Path, overrides: Sequence[str], reading: Reading) -> tuple[Config, dict[str, Any]]:
    values, owner = _read_mapping(Path(path), reading.run)
    for override in overrides:
        _apply(values, override)
    config = _validated(values)
    if reading.build and not reading.trusted:
        check_trust(config, Path(path), owner, reading.trackers)
    check_together(config, reading.build)
    return with_whole_paths(config), values


def parse_config(values: dict[str, Any], build: bool = True) -> Config:
    """Validate a nested mapping; raises `ConfigError` for the first thing that is wrong."""
    config = _validated(values)
    check_together(config, build)
    return config


def _validated(values: dict[str, Any]) -> Config:
    try:
        return Config.model_validate_json(json.dumps(_Plain().mapping(values, ())))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # Of a misspelt key pydantic says first that the right one is missing.
        raise explain(next((detail for detail in found if detail["type"] != "missing"), found[0])) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    text: str = yaml.safe_dump(_kinds_first(config.model_dump(mode="json")), sort_keys=False)
    return text


def dump_shown(config: Config) -> str:
    """The same for others to see: without what may be a secret (`pipeline.config.secrets`)."""
    text: str = yaml.safe_dump(_kinds_first(without_secrets(config)), sort_keys=False)
    return text


def _kinds_first(value: Any) -> Any:
    """The key that decides which others there are comes first."""
    if not isinstance(value, dict):
        return value
    return {key: _kinds_first(value[key]) for key in sorted(value, key=lambda key: key not in ("kind", "backbone"))}


def _read_mapping(path: Path, run: Path | None = None) -> tuple[dict[str, Any], int]:
    """What stands in the file, and the number of the user that it belongs to."""
    try:
        # A file of the user's own may be a pipe, as a shell's <(...) is.
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
        raise UserError(f"'{path}'{_where(error)} is not valid YAML: {_problem(error)}. Correct the file") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"'{path}' holds a {type(values).__name__}, not a mapping. Write 'key: value' lines, as in configs/"
        )
    return _Plain().mapping(values, ()), owner


def _where(error: Exception) -> str:
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
        f"{problem}, for what is opened in line {opened.line + 1}"
        if mark and opened and opened.line != mark.line
        else problem
    )


class _Plain:
    """Values as JSON has them: text for keys, and for what YAML knows and JSON does not, such as dates.

    Raises:
        ConfigError: too many values, or a text with a null byte or half a character, which no system call takes.
    """

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def mapping(self, values: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Every value of a section, and those in it."""
        plain = {}
        for key, value in values.items():
            name = self._text(str(key), path)
            plain[name] = self.value(value, (*path, name))
        return plain

    def value(self, value: Any, path: tuple[str, ...]) -> Any:
        """The value at `path`, whatever it is."""
        self._left -= 1
        if self._left < 0:
            problem = f"there are more than {MAX_VALUES} values in all, aliases resolved"
            raise ConfigError(".".join(path[:2]), problem, "Leave out what no run needs")
        if len(path) > MAX_DEPTH:
            return "..."
        if isinstance(value, dict):
            return self.mapping(value, path)
        if isinstance(value, list | tuple):
            return [self.value(item, (*path, str(number))) for number, item in enumerate(value)]
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:  # Python refuses to write those in decimal
            return f"an integer of {value.bit_length()} bits"
        return value if value is None or isinstance(value, bool | int | float) else self._text(str(value), path)

    def _text(self, text: str, path: tuple[str, ...]) -> str:
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            problem = f"{shown(text)} holds a character that no name or path can have"
            raise ConfigError(".".join(path), problem, "Leave it out")
        return text


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise UserError(f"override '{override}' is not of the form key=value. Example: objective.lambd=0.005")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except _YAML_ERRORS:
        raise ConfigError(key, f"{shown(text)} is not a valid YAML value", "Quote it if it is text") from None
    path = key.strip().split(".")
    *parents, leaf = path
    value = _Plain().value(value, tuple(path))
    section: Any = values
    for depth, name in enumerate(parents):
        if section.get(name) is None:  # missing, or empty in the file
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            above = ".".join(parents[: depth + 1])
            problem = f"'{above}' is the value {shown(section)}, not a section"
            raise ConfigError(key, problem, f"Give {above}=VALUE instead")
    kinds = _annotation_of(parents)
    if leaf in ("kind", "backbone") and kinds is not None:  # the file's keys of another kind go with it
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
