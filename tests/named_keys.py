"""Keys of the configuration that documents name, with or without a value, and whether there are such keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.config import Config, Section, StageOverrides
from pipeline.config.kinds import kinds_of
from tests.documents import Paragraph

VALUES = {"snapshots.every": "snapshots.every=20"}
"""For keys that documents name without a value as what another needs."""
OWN_KEY = re.compile(r"[a-z_]+(\.\w+)*")


def overrides(code: Sequence[str]) -> Iterator[str]:
    """`key=value` of all kinds that stand between backticks, `key: value` too."""
    for text in code:
        found = re.fullmatch(r"'?([a-z_]+(?:\.\w+)*)(=|: )(.+?)'?", text, re.S)
        if found and found[1].split(".")[0] in Config.model_fields and "KEY" not in text and " =" not in text:
            value = found[3].strip("'") if found[3].startswith("'") else found[3]
            for number, part in enumerate(re.split(r" (?=[a-z_.\d]+=)", value)):
                yield f"{found[1]}={part}" if number == 0 else part


def overrides_and_keys(paragraph: Paragraph) -> list[str]:
    """The overrides that a paragraph names, and keys that stand for one."""
    return [*overrides(paragraph.code), *(VALUES[code] for code in paragraph.code if code in VALUES)]


def names_a_key(code: str) -> bool:
    first, _, rest = code.partition(".")
    is_file = bool({"json", "jsonl", "md", "py", "yaml", "npz"} & set(rest.split(".")))
    return bool(OWN_KEY.fullmatch(code)) and bool(rest) and first in Config.model_fields and not is_file


def exists(path: Sequence[str], models: Sequence[type[Section]] = (Config,)) -> bool:
    """Whether a kind of every section on the way has the key."""
    name, *rest = path
    if name == "KEY":
        return True
    fields = [model.model_fields[name] for model in models if name in model.model_fields]
    if not fields:
        return False
    if name == "stages":  # of every one of them
        known = len(rest) < 2 or rest[1] in StageOverrides.model_fields
        return known and (len(rest) <= 2 or exists(rest[1:]))
    inner = [section for each in fields for section in _sections(each.annotation)]
    if rest and re.fullmatch(r"\d+|N", rest[0]):  # one of a list
        rest = rest[1:]
    return not rest or not inner or exists(rest, inner)


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    kinds = list(kinds_of(annotation).values())
    return kinds or [found for part in getattr(annotation, "__args__", ()) for found in _sections(part)]
