"""Names are the field's terms: none of the old dialect comes back, and no name stands for two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.base import Section
from tests.sources import PACKAGES, REPOSITORY, assert_clean, name_of, tree_of

CLASSES = {
    "Oversight": "RunMonitor", "Sending": "BatchSender", "Watch": "ControlListener or Heartbeat", "Owing": "Backlog",
    "Owed": "Backlog", "LastingSender": "ReplayingSender", "LastingReceiver": "ResumingReceiver", "Log": "ReplayBuffer",
    "Share": "RowRange, or Fraction", "SlicingSender": "ScatterSender", "JoiningReceiver": "GatherReceiver",
    "Reception": "Acceptor", "Arrival": "AcceptedClient", "Gate": "SlotCredits", "Teller": "ProgressPrinter",
    "Outlet": "SafeStream", "Terminal": "Console", "Parcel": "PendingMessage", "Meeting": "Rendezvous",
    "Member": "Worker", "Unit": "stage group", "Team": "ReplicaGroup", "Sign": "FailureReport",
    "Verdict": "FailureRecorder", "Agenda": "BatchPlan", "Work": "BatchTask", "Maker": "ViewWorker",
    "StandIn": "Replacement", "Taken": "SnapshotPart", "SnapshotKeeper": "SnapshotCommitter", "Now": "CurrentState",
    "Differences": "StepDeltas", "Buckets": "Downsampler", "Reading": "LoadOptions", "Named": "Plugin",
    "LeftOut": "SkippedFiles",
}  # fmt: skip
"""Names of classes that were pictures of our own, and the term of the field for each."""
FUNCTIONS = {
    "greet": "on_connect", "hear_goodbye": "on_close", "speak_in_spite_of_all": "ignore_broken_pipe",
    "become": "what it does", "attend": "what it does", "bury": "what it does", "hire": "what it does",
    "may_go": "what it does", "tell": "log, send or report", "hear": "listen", "found": "what it returns",
    "known": "what it returns", "told": "what it returns", "said": "what it returns", "laid_out": "in_memory_format",
    "nearby": "did_you_mean", "right": "count_correct", "leading_out": "links_out_of", "lasting": "with_epochs",
    "lasting_sender": "replaying_sender",
    "lasting_receiver": "resuming_receiver",
    "leave_warnings_to_us": "silence_size_warnings", "check_together": "check_combinations",
    "dump_shown": "dump_without_secrets", "with_whole_paths": "with_absolute_paths", "regular": "checked_result",
}  # fmt: skip
"""Names of functions that did not say what they do, also with an underscore, and what to call them."""
VAGUE = {"found", "known", "what", "where", "own", "told", "said", "mine", "made"}
"""No name at the top of a file; they say nothing about the thing."""
FILES = {
    "agenda", "agent", "fan", "feeding", "gate", "importing", "lasting", "making", "meeting", "observation", "opening",
    "outlet", "oversight", "owing", "own_losses", "pace", "pair", "reception", "returned", "sending", "telling",
    "voice", "watch",
}  # fmt: skip
"""Files and folders of the old dialect."""
KEYS = VAGUE | {"agenda", "gate", "owing", "team", "voice", "watch"}
"""No key of the configuration."""


def top_level_names(path: Path) -> Iterator[str]:
    """What a file defines at its top: classes, functions and assigned names."""
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def classes_of(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef))


def test_classes_have_the_names_of_the_field() -> None:
    def old(path: Path) -> Iterator[str]:
        for node in classes_of(path):
            term = CLASSES.get(node.name.strip("_"))
            if term:
                yield f"{node.name} (line {node.lineno}) is of the old dialect: {term}"

    assert_clean(PACKAGES, old)


def test_functions_say_what_they_do() -> None:
    def old(path: Path) -> Iterator[str]:
        for node in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)):
            term = FUNCTIONS.get(node.name.strip("_"))
            if term:
                yield f"{node.name} (line {node.lineno}) does not say what it does: {term}"

    assert_clean(PACKAGES, old)


def test_names_at_the_top_of_a_file_say_what_they_are() -> None:
    def vague(path: Path) -> Iterator[str]:
        for name in top_level_names(path):
            if name.strip("_").lower() in VAGUE:
                yield f"{name} says nothing about the thing"

    assert_clean(PACKAGES, vague)


def test_files_and_folders_have_the_names_of_the_field() -> None:
    def old(path: Path) -> Iterator[str]:
        for part in Path(name_of(path)).with_suffix("").parts:
            if part.strip("_") in FILES:
                yield f"{part} is a name of the old dialect"

    assert_clean(PACKAGES, old)


def test_keys_of_the_configuration_have_the_names_of_the_field() -> None:
    found = [f"{s.__name__}.{key}" for s in sections() for key in s.model_fields if key in KEYS]
    assert not found, found


def test_every_section_of_the_configuration_ends_in_config() -> None:
    found = [s.__name__ for s in sections() if not s.__name__.endswith("Config") and s.__name__ != "StageOverrides"]
    assert not found, found


def sections() -> Iterator[type[Section]]:
    """The models of the configuration."""
    import pipeline.config  # noqa: F401  # defines them all

    waiting = [Section]
    while waiting:
        for model in waiting.pop().__subclasses__():
            waiting.append(model)
            if model.__module__.startswith("pipeline.config"):
                yield model


PUBLIC_CONFIG = REPOSITORY / "onward" / "config.py"
"""The same configuration, with ways to read and write it, under the name by which programs know it."""


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for path in PACKAGES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    places["Config"].remove(PUBLIC_CONFIG)
    twins = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not twins, "\n".join(f"{name}: {', '.join(map(name_of, paths))}" for name, paths in sorted(twins.items()))


@pytest.mark.parametrize("names", [CLASSES, FUNCTIONS])
def test_the_lists_themselves_hold_bare_names(names: dict[str, str]) -> None:
    assert all(name == name.strip("_") for name in names)
