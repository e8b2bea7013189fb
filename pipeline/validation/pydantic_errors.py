"""Rewrites pydantic's errors for users: dotted path, value, allowed values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic_core import ErrorDetails

from pipeline.config import Config, Section, StageOverrides, TraceConfig, TrackerConfig
from pipeline.config.kinds import annotation_at, kinds_of, section_for
from pipeline.config.model import BACKBONES
from pipeline.errors import ConfigError, allowed_names


def explain(detail: ErrorDetails, root: Sequence[str] = ()) -> ConfigError:
    """The `ConfigError` for one error of pydantic.

    Args:
        detail: pydantic's error; its location may contain the tags of kinds.
        root: path of the section that was validated, if it was not the whole configuration.
    """
    value, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    parts = [*root, *(str(part) for part in detail["loc"])]
    if kind == "missing" and isinstance(detail["loc"][-1], int):  # values missing in a list that is too short
        parts, kind = parts[:-1], "too_short_list"
    place = _locate(parts)
    path, name = _dotted(place.path), place.path[-1] if place.path else ""
    if name == "[key]":  # only `stages` has keys that are not names
        problem = f"{shown(str(value))} is not the number of a stage"
        return ConfigError(_dotted(place.path[:-1]), problem, "Stages are numbered 1, 2, ...")
    if kind == "missing":
        in_list = len(place.path) > 1 and place.path[0] == "faults"  # which overrides cannot set
        return ConfigError(path, "is missing", f"{'Add it' if in_list else f'Give {path}=VALUE'}; there is no default")
    if kind == "extra_forbidden":
        return ConfigError(path, f"unknown key (value {shown(value)})", _near_key(place, _locate(parts[:-1])))
    if kind == "union_tag_invalid":
        unknown = value.get("kind") if isinstance(value, dict) else value
        kinds = [_NAMED.get(kind, kind) for kind in kinds_of(place.annotation)]
        return ConfigError(f"{path}.kind", f"unknown value {shown(unknown)}", allowed_names(str(unknown), kinds))
    if kind == "literal_error":
        choices = BACKBONES if path == "model.backbone" else _choices(context)
        return ConfigError(path, f"unknown value {shown(value)}", allowed_names(str(value), choices))
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition(". ")
        return ConfigError(path, problem, remedy or "Correct the value")
    if kind in ("model_type", "dict_type"):
        keys = (
            "the numbers of stages" if place.path == ["stages"] else ", ".join((place.section or Config).model_fields)
        )
        short = "Give true, false or a section. " if place.section is TraceConfig else ""
        return ConfigError(path, f"got {shown(value)} where a section was expected", f"{short}Its keys are {keys}")
    return ConfigError(path, f"got {shown(value)}", _allowed(kind, context, detail["msg"], place))


def shown(value: Any) -> str:
    """`value` as in YAML, shortened if it is long, with control characters escaped."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


def _dotted(path: Sequence[str]) -> str:
    """A path for a message; unknown keys may be long or have control characters."""
    return ".".join(name if name.isprintable() and len(name) <= 60 else shown(name) for name in path)


_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text; quote it",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_LISTS = {
    "cuts": "[layer1, layer2]; onward check prints all names",
    "blocks": "[1, 2]",
    "projector": "[8192, 8192]",
    "crop_scale": "[0.08, 1.0]",
    "mean": "[0.485, 0.456, 0.406]",
    "std": "[0.229, 0.224, 0.225]",
    "linear": "[quick, lidar]",
    "places": "[trunk, expansion]",
}
_PATTERNS = {
    "device": "auto, cpu, cuda, or cuda:N with the number of a GPU",
    "backbone": "timm/NAME, a name of timm.list_models(), or PACKAGE.MODULE:FUNCTION, such as "
    "torchvision.models:convnext_tiny",
    "kind": "PACKAGE.MODULE:CLASS, such as my_losses:Cosine",
    "sha256": "64 digits from 0 to f, as sha256sum prints them",
    "tracker": "tensorboard, or PACKAGE.MODULE:CLASS, such as my_trackers:Sheet",
}
_NAMED = {"custom": "PACKAGE.MODULE:CLASS"}
"""How the kind of a custom class is written."""


def _allowed(kind: str, context: Mapping[str, Any], message: str, place: _Place) -> str:
    """The allowed values, as a sentence."""
    if kind == "tuple_type" and place.section is not None:
        short = "names, such as [tensorboard], or of " if place.section is TrackerConfig else ""
        return f"It should be a list of {short}sections, each with keys of {', '.join(place.section.model_fields)}"
    if kind == "tuple_type" and place.path and place.path[-1] in _LISTS:
        return f"It should be a list, such as {_LISTS[place.path[-1]]}"
    if kind in _TYPES:
        return f"It should be {_TYPES[kind]}"
    if kind == "string_pattern_mismatch":
        return f"It should be {_PATTERNS['tracker' if place.holder is TrackerConfig else place.path[-1]]}"
    if kind == "too_short":
        return f"It should be a list of at least {context['min_length']} value"
    if kind in ("too_long", "too_short_list"):
        return f"It should be a list of {_length(place.annotation)} values"
    return message.replace("Input should", "It should")


def _length(annotation: Any) -> int:
    """Length of a tuple, or of the tuple among several choices."""
    if get_origin(annotation) is tuple:
        return len(get_args(annotation))
    return max((_length(choice) for choice in get_args(annotation)), default=0)


def _choices(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", ""))) or [str(context.get("expected", ""))]


def _near_key(place: _Place, section: _Place) -> str:
    """The allowed keys, and other kinds of the section that have the unknown key."""
    name, keys = place.path[-1], place.holder.model_fields
    kinds = kinds_of(section.annotation)
    owners = [tag for tag, model in kinds.items() if name in model.model_fields]
    if not owners:
        same = [key for key in _all_keys(Config) if key.rpartition(".")[2] == name] if len(place.path) == 1 else []
        return f"Did you mean '{same[0]}'? Allowed: {', '.join(keys)}" if same else allowed_names(name, keys)
    kind = next(tag for tag, model in kinds.items() if model is place.holder)
    return f"It is a key of {', '.join(owners)}, and this is {kind}. Allowed: {', '.join(keys)}"


def _all_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted keys of everything that can be set."""
    for name in section.model_fields:
        annotation = annotation_at(section, name)
        models = [section_for(annotation, {})] if not kinds_of(annotation) else list(kinds_of(annotation).values())
        if prefix + name != "stages":
            yield prefix + name
        for model in models:
            if model is not None and name != "stages":
                yield from _all_keys(model, f"{prefix}{name}.")


@dataclass(frozen=True)
class _Place:
    """The location of an error: the path, the section that has its last key, and the section at the path, if any."""

    path: list[str]
    holder: type[Section]
    annotation: Any
    section: type[Section] | None


def _locate(parts: Sequence[str]) -> _Place:
    """Resolve a location of pydantic, which has the tag of a kind after every section with kinds."""
    path: list[str] = []
    holder: type[Section] = Config
    section: type[Section] | None = Config
    annotation: Any = None
    for part in parts:
        kinds = kinds_of(annotation)
        if part in kinds:
            section = kinds[part]
            continue
        holder = section or holder
        path.append(part)
        if get_origin(annotation) is tuple:  # one of a list; a list of sections has their keys
            annotation = get_args(annotation)[0]
            continue
        if path[0] == "stages" and len(path) == 2:
            annotation = StageOverrides
        else:  # a section of a stage has the keys of the common one
            common = path[0] == "stages" and len(path) == 3 and isinstance(getattr(Config(), part, None), Section)
            annotation = annotation_at(Config if common else holder, part)
        section = section_for(annotation, {})
    return _Place(path, holder, annotation, section)
