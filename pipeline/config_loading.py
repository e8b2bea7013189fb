"""From a YAML file and dotted overrides to a validated `Config`, or one readable error.

The file is parsed, overrides such as `objective.lambd=0.005` are laid over it, and pydantic
validates the result. `config_errors` rewrites its errors, `config_checks` has what no section can check alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config, Section
from pipeline.config.kinds import annotation_at, merged_values, section_for
from pipeline.config_checks import check_together
from pipeline.config_errors import explain, shown
from pipeline.errors import ConfigError, UserError

_MERGE_TAG = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two traps taken out.

    `1e-6` is a number, as people who write learning rates mean it. A key that stands twice is an
    error: YAML would silently keep the last.
    """

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
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read `path`, apply `key=value` overrides in order and validate.

    Raises:
        UserError: the file cannot be read or is not a YAML mapping.
        ConfigError: a key or value that is not accepted.
    """
    values = _read_mapping(Path(path))
    for override in overrides:
        _apply(values, override)
    return parse_config(values)


def parse_config(values: dict[str, Any]) -> Config:
    """Validate a nested mapping; raises `ConfigError` for the first thing that is wrong."""
    try:
        config = Config.model_validate_json(json.dumps(_plain(values)))
    except ValidationError as error:
        raise explain(error.errors()[0]) from None
    check_together(config)
    return config


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    text: str = yaml.safe_dump(_kinds_first(config.model_dump(mode="json")), sort_keys=False)
    return text


def _kinds_first(value: Any) -> Any:
    """The key that decides which others there are comes first."""
    if not isinstance(value, dict):
        return value
    return {key: _kinds_first(value[key]) for key in sorted(value, key=lambda key: key not in ("kind", "backbone"))}


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
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
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the date 2020-99-99
        raise UserError(f"'{path}'{_where(error)} is not valid YAML: {_problem(error)}. Correct the file") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"'{path}' holds a {type(values).__name__}, not a mapping. Write 'key: value' lines, as in configs/"
        )
    return values


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    problem = str(getattr(error, "problem", None) or str(error).splitlines()[0])
    mark, opened = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    return (
        f"{problem}, for what is opened in line {opened.line + 1}"
        if mark and opened and opened.line != mark.line
        else problem
    )


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it: text for keys, and for what YAML knows and JSON does not, such as dates."""
    if depth > 20:  # no section is as deep; a YAML alias may even hold itself
        return "..."
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise UserError(f"override '{override}' is not of the form key=value. Example: objective.lambd=0.005")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(key, f"'{text}' is not a valid YAML value", "Quote it if it is text") from None
    *parents, leaf = key.strip().split(".")
    section: Any = values
    for depth, name in enumerate(parents):
        name = _as_key(section, name)
        if section.get(name) is None:  # missing, or empty in the file
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            path = ".".join(parents[: depth + 1])
            problem = f"'{path}' is the value {shown(section)}, not a section"
            raise ConfigError(key, problem, f"Give {path}=VALUE instead")
    leaf = _as_key(section, leaf)
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


def _as_key(section: dict[Any, Any], name: str) -> Any:
    """YAML reads the keys of `stages` as numbers; an override must hit the same key."""
    return int(name) if name.isdigit() and int(name) in section else name
