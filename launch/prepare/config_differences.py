"""In what two configurations differ, and whether they are of one run.

What decides the numbers must be the same; how they are computed may differ: the runtime, the link, the devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from pipeline.validation.pydantic_errors import shown

FREE = (
    "run_dir", "runtime", "device", "replicas", "processes", "restart", "max_restarts", "hang_timeout", "faults",
    "signals", "link.kind", "link.depth", "link.timeout", "metrics", "alarms", "trace", "trackers", "snapshots",
    "evaluation", "engine.shard_optimizer", "train.max_skipped", "data.workers", "data.root", "data.download",
    "data.feed", "data.in_memory", "data.affinity", "data.on_error", "data.scan_headers", "determinism",
)  # fmt: skip
"""What may differ from the run that is continued."""


def is_free(key: str) -> bool:
    """Whether a key, or the section that it is in, may differ from the run that is continued."""
    parts = key.split(".")
    if parts[0] == "stages" and parts[2:] in (["device"], ["replicas"], ["engine", "shard_optimizer"]):
        return True
    return any(key == free or key.startswith(free + ".") for free in FREE)


def differences(
    there: Config, here: Config, may_differ: Callable[[str], bool] = lambda key: key == "run_dir"
) -> dict[str, str]:
    """What two configurations differ in: `key is A there, B here` by key, but for keys that `may_differ`."""
    before, after = (_flat(config.model_dump(mode="json")) for config in (there, here))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and not may_differ(key)]
    if not keys:
        return {}
    shown_before, shown_after = (_flat(without_secrets(config)) for config in (there, here))
    return {key: f"{key} is {shown(shown_before.get(key))} there, {shown(shown_after.get(key))} here" for key in keys}


def deciding_differences(there: Config, here: Config) -> dict[str, str]:
    """As `differences`, of what decides the numbers."""
    return differences(there, here, is_free)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
