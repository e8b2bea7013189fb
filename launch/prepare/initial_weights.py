"""The weights that a run begins with (`init_from`): that they are there and fit, and their digest in the configuration.

The files are fitted to the network in a process of its own, which loads torch. What the stages begin with is then in
the run directory: the run needs the source no more. A run that goes on, compares the digests.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pipeline.config import Config
from pipeline.config.initial import InitFromConfig
from pipeline.errors import ConfigError, UserError, printable
from workers.determinism.child import Note, run_in_interpreter
from workers.run.files import RunDir
from workers.weights.sources import Source

SECONDS = 3600.0
"""Limit for reading and fitting, of weights on a slow disk, too."""
ROWS = 40
"""Of the table that are shown."""


def with_digests(config: Config, earlier: Config | None = None) -> Config:
    """`config` with the digest of every source in `init_from.sha256`.

    Args:
        config: of the run.
        earlier: of the run that it goes on with, whose source may be gone.

    Raises:
        ConfigError: a source has another digest than is given, or cannot be read.
    """
    begun = {} if earlier is None else _begun_with(earlier)
    common = config.init_from.model_copy(update={"sha256": _digest("init_from", config.init_from, begun)})
    stages = dict(config.stages)
    for index, own in config.stages.items():
        if own.init_from and index <= config.num_stages:
            merged = config.stage(index).init_from
            if "path" in own.init_from and "sha256" not in own.init_from:
                merged = merged.model_copy(update={"sha256": None})  # that of the run is of another source
            digest = _digest(f"stages.{index}.init_from", merged, begun)
            stages[index] = own.model_copy(update={"init_from": {**own.init_from, "sha256": digest}})
    return config.model_copy(update={"init_from": common, "stages": stages})


def _begun_with(earlier: Config) -> dict[str, str]:
    """The digests of the sources that a run began with, by path."""
    stages = (earlier.stage(index).init_from for index in range(1, earlier.num_stages + 1))
    return {each.path: each.sha256 for each in (earlier.init_from, *stages) if each.path and each.sha256}


def _digest(key: str, settings: InitFromConfig, begun: Mapping[str, str]) -> str | None:
    """The digest of one source; of one that is gone, what the run began with."""
    path, given = settings.path, settings.sha256
    if path is None or (given is not None and given == begun.get(path)):  # as the run's own file has it
        return given
    try:
        found = Source.of(path).digest()
    except UserError as error:
        if path in begun:
            return begun[path]
        raise ConfigError(f"{key}.path", str(error), "docs/how-to/weights.md has what it can be") from None
    if given not in (None, found):
        problem = f"'{path}' has the digest {found}, not {given}"
        raise ConfigError(f"{key}.sha256", problem, "Give the weights that are meant, or leave the digest out")
    return found


def has_initial_weights(config: Config) -> bool:
    """Whether any stage begins with given weights."""
    return any(config.stage(index).init_from.path is not None for index in range(1, config.num_stages + 1))


def prepare_initial_weights(config: Config, run: RunDir | None) -> list[str]:
    """Fit the sources to the network; with a run also write what its stages begin with.

    Returns:
        Sentences for the user.

    Raises:
        UserError: a source cannot be read or does not fit; a table of what does not is printed before.
    """
    if not has_initial_weights(config):
        return []
    note = Note()
    try:
        task = {"config": config.model_dump_json(), "run": None if run is None else str(run.path.absolute())}
        outcome = run_in_interpreter("workers.weights.initial_main", task, note, SECONDS)
    finally:
        note.close()
    answer: dict[str, Any] = outcome.result or {}
    if "notes" in answer:
        return [str(text) for text in answer["notes"]]
    if rows := answer.get("rows"):
        _print_table(rows)
    why = (
        f"took longer than {SECONDS:g} s" if outcome.late else outcome.error or f"was ended by signal {outcome.signal}"
    )
    raise UserError(str(answer.get("problem", f"init_from: fitting the weights {why}")))


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows[:ROWS])
    for name, problem in rows[:ROWS]:
        print(printable(f"  {name.ljust(width)}  {problem}"), file=sys.stderr)
    if len(rows) > ROWS:
        print(f"  and {len(rows) - ROWS} more", file=sys.stderr)
