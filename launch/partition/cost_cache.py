"""Keeps what was measured, one file for each machine, version and run, in `~/.cache/onward/costs`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from launch.partition.costs import Costs
from pipeline.config import Config
from pipeline.ordinary_files import read_whole
from workers.determinism.verified import machine_facts
from workers.run.cores import usable_cores
from workers.run.environment import ALLOCATOR, PACKAGES_FOLDER
from workers.run.files import write_text
from workers.run.private import home_cache, is_own

DECIDE = {
    "threads", "model", "data", "head", "objective", "noise", "optimizer", "precision", "link", "determinism",
}  # fmt: skip
OF_STAGES = {"frozen", "head", "objective", "noise", "optimizer", "precision"}
"""Sections of a configuration, and of a stage of it, that what is measured depends on."""
MOST_BYTES = 2**26
"""Of a file, and of a source file; far more than there can be in one."""
_COSTS = TypeAdapter(Costs)


class CostCache:
    """What was measured for one run on one machine.

    Where the folder cannot be made, belongs to somebody else or may be written by others, nothing is kept; nor is what
    code of the user's own costs, which may change without its name.

    Args:
        config: of the run, cut after every unit.
        device: that was measured.
        folder: of the files; that of this user if not given.
    """

    def __init__(self, config: Config, device: torch.device, folder: Path | None = None) -> None:
        folder = folder or home_cache() / "onward" / "costs"
        kinds = [config.stage(index).objective.kind for index in range(1, config.num_stages + 1)]
        custom = any(":" in name for name in (config.model.backbone, config.data.name, *kinds))
        of_stages = {
            index: own.model_dump(mode="json", include=OF_STAGES, exclude_defaults=True)
            for index, own in config.stages.items()
        }
        key = {
            "config": config.model_dump(mode="json", include=DECIDE),
            "stages": {index: settings for index, settings in of_stages.items() if settings},
            "more": [config.uses_labels, config.metrics.norms_every, str(device)],
            "machine": machine_facts(device),
            "cores": usable_cores(),
            "allocator": {name: os.environ.get(name) for name in ALLOCATOR},
            "sources": _digest_of_sources(),
        }
        name = f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.json"
        self._file = folder / name if not custom and is_own(folder) else None
        self._units = config.model.units()

    def read(self) -> Costs | None:
        """What was measured before; None if nothing was, or if its file is damaged."""
        if self._file is None:
            return None
        try:
            message = json.loads(read_whole(self._file, MOST_BYTES))
            costs = from_message(message)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return costs if [unit.unit for unit in costs.units] == self._units else None

    def write(self, costs: Costs) -> None:
        """Keep `costs` for the next time."""
        if self._file is not None:
            with suppress(OSError):
                write_text(self._file, json.dumps(to_message(costs)), mode=0o600)


def to_message(costs: Costs) -> dict[str, Any]:
    """As JSON can hold it, whose keys are texts."""
    ends = [[*place, asdict(end)] for place, end in costs.ends.items()]
    return {**asdict(costs), "ends": ends}


def from_message(message: Mapping[str, Any]) -> Costs:
    """The inverse of `to_message`; raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    ends = {(stage, last): end for stage, last, end in message["ends"]}
    return _COSTS.validate_python({**message, "ends": ends})


def _digest_of_sources() -> str:
    """Of all that a step, or the measuring of one, runs."""
    digest, root = hashlib.sha256(), Path(PACKAGES_FOLDER)
    for package in ("pipeline", "workers", "launch/partition"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + read_whole(path, MOST_BYTES) + b"\0")
    return digest.hexdigest()
