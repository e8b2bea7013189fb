"""What every rank says before a run on several hosts, and in what the ranks may not differ."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from launch.prepare.config_differences import flatten
from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from pipeline.ordinary_files import read_whole
from pipeline.validation.pydantic_errors import shown
from workers.control.start_messages import StartMessage
from workers.control.validation import Count
from workers.run.environment import PACKAGES_FOLDER
from workers.run.keys import KEY_VARIABLE

OWN_KEYS = ("run_dir", "network", "data.root")
"""Keys and sections that each host may have its own values of."""
SHOWN = 5
"""Differences between two configurations that a message names."""
MAX_SOURCE = 1 << 24
"""Bytes of a source file."""
SOURCES = "source files of Onward"
MarkName = Annotated[str, Field(pattern=r"^(\.onward-[0-9a-f]{16}\.[0-9]+\.tmp)?$")]
"""Name of a file of `shared_folder.write_mark`, and nothing that leads elsewhere: anybody may write to the store."""


@dataclass(frozen=True, kw_only=True)
class Presence(StartMessage):
    """One rank, as the others see it.

    Args:
        rank: over all hosts.
        host: its name.
        first: the first rank of its host, if those follow each other.
        here: how many there are on it.
        problem: why it cannot start, in a sentence; empty if it can.
        addresses: by which it may be reached.
        port: where it listens for probes.
        token: that it answers probes with.
        versions: by what they are of.
        settings: its configuration as text, by key, without secrets.
        digest: of its whole configuration.
        run_dir: absolute path of the run directory, of rank 0; of the folder of all runs where it has none yet.
        above: how many folders above the run directory rank 0 has written its mark.
        mark: name of the file that rank 0 has written there; empty if it could not.
        key: fingerprint of the key that the user gives on this host; empty if none.
    """

    rank: Count
    host: str
    first: Count = 0
    here: Count = 0
    problem: str = ""
    addresses: list[str] = field(default_factory=list)
    port: Count = 0
    token: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    run_dir: str = ""
    above: Count = 0
    mark: MarkName = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem(StartMessage):
    """Why a run cannot start, as one rank sees it.

    Args:
        rank, host: which is concerned.
        text: follows on the name of the host: `does not see ...`.
        remedy: what to do.
    """

    rank: Count
    host: str
    text: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Reached(StartMessage):
    """What one rank has found out about rank 0.

    Args:
        ways: own address by each address of rank 0 that was reached.
        unreached: why others were not.
        mark: name of the file that it has written beside that of rank 0.
        folder_problem: why it could not.
        holds_run: there is a run in its run directory, which is not that of rank 0.
    """

    ways: dict[str, str] = field(default_factory=dict)
    unreached: list[str] = field(default_factory=list)
    mark: MarkName = ""
    folder_problem: str = ""
    holds_run: bool = False


@dataclass(frozen=True, kw_only=True)
class OwnProblems(StartMessage):
    """The problems that one rank has found.

    Args:
        problems: all of them.
        apart: of rank 0: the ranks that do not see its run directory.
    """

    problems: list[Problem] = field(default_factory=list)
    apart: list[Count] = field(default_factory=list)


def own_versions() -> dict[str, str]:
    """What every host must have the same of."""
    return {
        "Onward": importlib.metadata.version("onward"),
        SOURCES: _digest_of_sources(),
        "PyTorch": torch.__version__,
        "Python": ".".join(map(str, sys.version_info[:2])),
    }


def settings_of(config: Config) -> tuple[dict[str, str], str]:
    """The configuration as text by key, without secrets, and a digest of all of it; without keys of one host."""
    visible = {key: shown(value) for key, value in flatten(without_secrets(config)).items() if not is_own(key)}
    whole = {key: value for key, value in flatten(config.model_dump(mode="json")).items() if not is_own(key)}
    return visible, hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def is_own(key: str) -> bool:
    """Whether each host may have its own value of a key."""
    return any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS)


def differences_from_first(presences: list[Presence]) -> list[Problem]:
    """In what the ranks differ from rank 0, and the problems that they have told themselves."""
    first = presences[0]
    problems = [_problem(each, f": {each.problem}", "") for each in presences if each.problem]
    if problems:
        return problems
    for each in presences[1:]:
        for what, version in first.versions.items():
            if (own := each.versions.get(what)) != version:
                which = f"has other {what} (digest {own}) than" if what == SOURCES else f"has {what} {own} and not"
                whose = (
                    f"rank 0 on {first.host} ({version})" if what == SOURCES else f"{version} as rank 0 on {first.host}"
                )
                remedy = (
                    "Check out the same commit on every host" if what == SOURCES else "Install the same on every host"
                )
                problems.append(_problem(each, f" {which} {whose}", remedy))
                break  # other versions of Onward have other sources, too
        else:
            problems += _other_configuration(first, each) + _other_key(first, each)
    return problems


def in_words(problems: Iterable[Problem], world_size: int) -> str:
    """All problems in one line; those of several ranks that say the same are said once."""
    ranks: dict[tuple[str, str], dict[str, list[int]]] = {}
    for problem in problems:
        by_host = ranks.setdefault((problem.text, problem.remedy), {})
        by_host.setdefault(problem.host, []).append(problem.rank)
    sentences = []
    for (text, remedy), by_host in ranks.items():
        everybody = sum(map(len, by_host.values())) == world_size and text.startswith(": ")
        who = "" if everybody else " and ".join(f"{host} ({_listed(own)})" for host, own in by_host.items())
        sentence = f"{who}{text}".removeprefix(": ")
        sentences.append(f"{sentence}. {remedy}" if remedy else sentence)
    return ". Also: ".join(sentences)


def _problem(presence: Presence, text: str, remedy: str) -> Problem:
    return Problem(rank=presence.rank, host=presence.host, text=text, remedy=remedy)


def _other_key(first: Presence, each: Presence) -> list[Problem]:
    if each.key == first.key:
        return []
    which = "has another key in" if each.key and first.key else "has no" if first.key else "has"
    more = "" if each.key and first.key else ", which has none" if each.key else ", which has one"
    text = f" {which} {KEY_VARIABLE}: not as rank 0 on {first.host}{more}"
    return [_problem(each, text, f"Give every host the same key in {KEY_VARIABLE}=FILE, or none")]


def _other_configuration(first: Presence, each: Presence) -> list[Problem]:
    if each.digest == first.digest:
        return []
    keys = [key for key in {**first.settings, **each.settings} if first.settings.get(key) != each.settings.get(key)]
    named = [f"{key} is {each.settings.get(key)}, not {first.settings.get(key)}" for key in keys[:SHOWN]]
    which = "; ".join(named) or "in values that are not shown, because they may be secret"
    text = f" was given another configuration than rank 0 on {first.host}: {which}"
    return [_problem(each, text, "Give every host the same command line and the same file")]


def _listed(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _digest_of_sources() -> str:
    digest, root = hashlib.sha256(), Path(PACKAGES_FOLDER)
    for package in ("pipeline", "workers", "launch"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + read_whole(path, MAX_SOURCE) + b"\0")
    return digest.hexdigest()[:12]
