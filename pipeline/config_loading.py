"""From a YAML file and dotted overrides to a validated `Config`, or one readable error.

The file is parsed, overrides such as `objective.lambd=0.005` are laid over it, and pydantic
validates the result. Its errors are rewritten: dotted path, the value found, what is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config import Config, Section
from pipeline.errors import ConfigError, UserError, nearest


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-6` as text; people who write learning rates mean a number."""


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
        config = Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise _explain(error.errors()[0]) from None
    _check_stages(config)
    _check_together(config)
    return config


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"configuration file '{path}' does not exist. Give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration file '{path}' cannot be read ({error}). Give a UTF-8 YAML file") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more resolver
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"'{path}'{where} is not valid YAML: {problem}. Correct that line") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"'{path}' holds a {type(values).__name__}, not a mapping. Write 'key: value' lines, as in configs/"
        )
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise UserError(f"override '{override}' is not of the form key=value. Example: objective.lambd=0.005")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more resolver
    except yaml.YAMLError:
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
            raise ConfigError(key, f"'{path}' is the value {section!r}, not a section", f"Set {path}=VALUE instead")
    section[_as_key(section, leaf)] = value


def _as_key(section: dict[Any, Any], name: str) -> Any:
    """YAML reads the keys of `stages` as numbers; an override must hit the same key."""
    return int(name) if name.isdigit() and int(name) in section else name


def _explain(detail: ErrorDetails) -> ConfigError:
    location = [str(part) for part in detail["loc"]]
    path = ".".join(location)
    value, kind = detail["input"], detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return ConfigError(path, f"unknown key (value {_short(value)})", nearest(location[-1], _keys_at(location[:-1])))
    if kind == "literal_error":
        return ConfigError(path, f"unknown value {_short(value)}", nearest(str(value), _choices(context)))
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition(". ")
        return ConfigError(path, problem, remedy or "Correct the value")
    if kind in ("model_type", "dict_type"):
        keys = _keys_at(location)
        return ConfigError(path, f"got {_short(value)} where a section was expected", f"Keys: {', '.join(keys)}")
    if kind == "string_pattern_mismatch":
        return ConfigError(path, f"got {_short(value)}", "Allowed: auto, cpu, cuda, cuda:N")
    message = detail["msg"].replace("Input should be", "it should be").replace("a valid ", "a ")
    return ConfigError(path, f"got {_short(value)}", message[:1].upper() + message[1:])


def _choices(context: dict[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", ""))) or [str(context.get("expected", ""))]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(location: Sequence[str]) -> list[str]:
    """The keys that the section at `location` accepts."""
    model: type[BaseModel] = Config
    for name in location:
        field = model.model_fields.get(name)
        found = _section_in(field.annotation) if field else None
        if found is None:
            continue  # the number of a stage inside `stages`
        model = found
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_in(arg))), None)


def _check_stages(config: Config) -> None:
    for index in config.stages:
        if not 1 <= index <= config.num_stages:
            raise ConfigError(
                f"stages.{index}",
                f"there is no stage {index}",
                f"The network is cut into {config.num_stages} blocks; stages are 1 to {config.num_stages}",
            )
        try:
            config.stage(index)
        except ValidationError as error:  # its title is the section's class: Head, Objective, ...
            detail = error.errors()[0]
            explained = _explain({**detail, "loc": (error.title.lower(), *detail["loc"])})
            raise ConfigError(f"stages.{index}.{explained.path}", explained.problem, explained.remedy) from None


def _check_together(config: Config) -> None:
    """Values that are fine alone and make no sense together."""
    optimizer = config.optimizer
    if optimizer.warmup_epochs >= config.train.epochs:
        raise ConfigError(
            "optimizer.warmup_epochs",
            f"a warm-up of {optimizer.warmup_epochs} epochs leaves nothing of the {config.train.epochs} trained",
            f"Give less than train.epochs={config.train.epochs}",
        )
