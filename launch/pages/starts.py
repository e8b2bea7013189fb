"""The starts of a run as text: when, where, with which versions, commit and modules."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launch.pages.number_format import NOTHING

SHOWN_STARTS = 20
"""The last starts that a page shows; `provenance.json` has all."""
DIGITS = 12
"""Of the name of a commit or the digest of a file."""


@dataclass(frozen=True)
class StartFacts:
    """One start.

    Args:
        title: its number, and when it was.
        facts: by name.
    """

    title: str
    facts: dict[str, str]


def start_facts(starts: Sequence[dict[str, Any]]) -> list[StartFacts]:
    """The last starts of a `provenance.json`, whatever is in it; the oldest of them first."""
    first = max(len(starts) - SHOWN_STARTS, 0)
    return [_facts(number, start) for number, start in enumerate(starts[first:], first + 1)]


def _facts(number: int, start: dict[str, Any]) -> StartFacts:
    step = start.get("step")
    after = f", after {step:,} steps" if isinstance(step, int) and step else ""
    commits = [_commit(commit) for commit in _objects(start, "commits")]
    modules = [_module(module) for module in _objects(start, "modules")]
    versions = start.get("versions")
    named = versions.items() if isinstance(versions, dict) else ()
    facts = {
        "command": shlex.join(_texts(start, "command")) or NOTHING,
        "in": _text(start, "folder"),
        "host": ", ".join(_texts(start, "hosts")) or _text(start, "host"),
        "system": _text(start, "system"),
        "versions": ", ".join(f"{name} {version}" for name, version in named) or NOTHING,
        "commits": "; ".join(commits) or "no repository",
        "modules of the user": "; ".join(modules) or "none",
    }
    return StartFacts(f"Start {number}{after}, {_text(start, 'time')}", facts)


def _commit(commit: dict[str, Any]) -> str:
    known = commit.get("changed")
    changed = ", with changes" if known is True else "" if known is False else ", changes not known"
    holds = ", ".join(_texts(commit, "holds"))
    return f"{_text(commit, 'commit')[:DIGITS]}{changed} in {_text(commit, 'repository')} ({holds})"


def _module(module: dict[str, Any]) -> str:
    digest, file = _text(module, "sha256")[:DIGITS], module.get("file")
    where = f"{file}, SHA-256 {digest}" if isinstance(file, str) else f"not copied: {_text(module, 'why_not')}"
    return f"{_text(module, 'name')} ({where})"


def _text(values: dict[str, Any], key: str) -> str:
    found = values.get(key)
    return found if isinstance(found, str) and found else NOTHING


def _texts(values: dict[str, Any], key: str) -> list[str]:
    found = values.get(key)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _objects(values: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    found = values.get(key)
    yield from (each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()
