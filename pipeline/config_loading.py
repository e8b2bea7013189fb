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
from pipeline.shapes import boundary_shapes

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
            problem = f"'{path}' is the value {_short(section)}, not a section"
            raise ConfigError(key, problem, f"Give {path}=VALUE instead")
    section[_as_key(section, leaf)] = value


def _as_key(section: dict[Any, Any], name: str) -> Any:
    """YAML reads the keys of `stages` as numbers; an override must hit the same key."""
    return int(name) if name.isdigit() and int(name) in section else name


def _explain(detail: ErrorDetails) -> ConfigError:
    location = [str(part) for part in detail["loc"]]
    value, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    if location[-1:] == ["[key]"]:  # only `stages` has keys that are not names
        problem = f"'{value}' is not the number of a stage"
        return ConfigError(".".join(location[:-1]), problem, "Stages are numbered 1, 2, ...")
    if kind == "missing":  # the values of a list that is too short; no key is mandatory
        location = location[:-1]
    path, name = ".".join(location), location[-1] if location else ""
    if kind == "extra_forbidden":
        return ConfigError(path, f"unknown key (value {_short(value)})", nearest(name, _keys_at(location[:-1])))
    if kind == "literal_error":
        return ConfigError(path, f"unknown value {_short(value)}", nearest(str(value), _choices(context)))
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition(". ")
        return ConfigError(path, problem, remedy or "Correct the value")
    if kind in ("model_type", "dict_type"):
        keys = "the numbers of stages" if location == ["stages"] else ", ".join(_keys_at(location))
        return ConfigError(path, f"got {_short(value)} where a section was expected", f"Its keys are {keys}")
    return ConfigError(path, f"got {_short(value)}", _allowed(kind, context, detail["msg"], location))


_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text; quote it",
    "tuple_type": "a list, such as [1, 2]",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "auto, cpu, cuda, or cuda:N with the number of a GPU",
}


def _allowed(kind: str, context: dict[str, Any], message: str, location: list[str]) -> str:
    """What a value should have been, as a sentence."""
    if kind in _TYPES:
        return f"It should be {_TYPES[kind]}"
    if kind == "too_short":
        return f"It should be a list of at least {context['min_length']} value"
    if kind in ("too_long", "missing"):
        return f"It should be a list of {len(_default_at(location))} values"
    return message.replace("Input should", "It should")


def _choices(context: dict[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", ""))) or [str(context.get("expected", ""))]


def _short(value: Any) -> str:
    """`value` as it may stand in YAML, cut where it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _default_at(location: Sequence[str]) -> Any:
    value: Any = Config()
    for name in location:
        value = getattr(value, name)
    return value


def _keys_at(location: Sequence[str]) -> list[str]:
    """The keys that the section at `location` accepts."""
    if location[:1] == ["stages"] and len(location) > 2:
        location = location[2:]  # a section of a stage has the keys of the common one
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
    for index, (_, _, _, height, width) in enumerate(boundary_shapes(config)[1:], 1):
        kind = config.stage(index).noise.kind
        if (kind == "hw" and height * width == 1) or (kind == "c_legacy" and height == 1):
            raise ConfigError(
                "noise.kind",
                f"'{kind}' takes a standard deviation over pixels, and the output of stage {index} is {height}x{width}",
                f"Give stages.{index}.noise.kind=all, or a larger data.image_size",
            )
