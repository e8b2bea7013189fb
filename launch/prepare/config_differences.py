"""How two configurations differ, and whether they are of one run.

Keys that decide the numbers must be the same; keys of how they are computed may differ: runtime, link, devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.config.secrets import without_secrets
from pipeline.validation.pydantic_errors import shown

FREE = (
    "run_dir", "runtime", "device", "replicas", "processes", "restart", "max_restarts", "hang_timeout", "faults",
    "signals", "shared_run_dir", "link.kind", "link.depth", "link.timeout",
    "link.rpc_transports", "link.device_to_device", "link.checksum", "network", "metrics", "alarms", "trace",
    "trackers", "snapshots", "evaluation", "engine.shard_optimizer", "train.max_skipped", "data.workers", "data.root",
    "data.download", "data.feed", "data.in_memory", "data.affinity", "data.on_error", "data.scan_headers",
    "determinism", "digests", "init_from.path",
)  # fmt: skip
"""Keys and sections that may differ from the run that is continued."""
NO_BITS = (
    "run_dir", "runtime", "processes", "link", "network", "shared_run_dir", "snapshots", "metrics", "alarms", "trace",
    "trackers", "evaluation", "digests", "restart", "max_restarts", "hang_timeout", "signals",
)  # fmt: skip
"""Keys and sections that change no bit."""
FREE_OF_STAGES = (["device"], ["replicas"], ["engine", "shard_optimizer"], ["init_from", "path"])
"""The same of the keys of one stage. Weights may lie elsewhere: their digest decides."""


def is_free(key: str) -> bool:
    """Whether a key, or the section that it is in, may differ from the run that is continued."""
    parts = key.split(".")
    if parts[0] == "stages" and parts[2:] in FREE_OF_STAGES:
        return True
    return any(key == free or key.startswith(free + ".") for free in FREE)


def changes_no_bit(key: str) -> bool:
    """Whether the bits of a run are the same for every value of a key; of `link` the codec changes them."""
    return key.split(".")[0] in NO_BITS and key != "link.codec"


def differences(
    there: Config, here: Config, may_differ: Callable[[str], bool] = lambda key: key == "run_dir"
) -> dict[str, str]:
    """The differences between two configurations, by key: `key is A there, B here`; without keys that `may_differ`."""
    there, here = _with_stages_of(there, here), _with_stages_of(here, there)
    before, after = (flatten(config.model_dump(mode="json")) for config in (there, here))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and not may_differ(key)]
    if not keys:
        return {}
    shown_before, shown_after = (flatten(without_secrets(config)) for config in (there, here))
    return {key: f"{key} is {shown(shown_before.get(key))} there, {shown(shown_after.get(key))} here" for key in keys}


def _with_stages_of(config: Config, other: Config) -> Config:
    """The same with a section for every stage that only the other has one for; it overrides nothing."""
    return config.model_copy(update={"stages": {**dict.fromkeys(other.stages, StageOverrides()), **config.stages}})


def deciding_differences(there: Config, here: Config) -> dict[str, str]:
    """As `differences`, of the keys that decide the numbers."""
    compiled = any(there.stage(index).precision.compile for index in range(1, there.num_stages + 1))
    # What is computed again has the same bits, except in compiled code.
    return differences(there, here, lambda key: is_free(key) or ("memory" in key.split(".") and not compiled))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differing_keys(settings: Sequence[Mapping[str, Any]], of_numbers: bool = True) -> list[str]:
    """The keys, in their order, that do not have the same value in all configurations.

    Where sections are of different kinds, `kind` (or `backbone`) stands for the keys that only some of them have.

    Args:
        settings: of `flatten`.
        of_numbers: leave out keys that do not decide the numbers, and the seed.
    """
    if not settings:
        return []
    first, keys = settings[0], dict.fromkeys(key for each in settings for key in each)
    differ = [key for key in keys if any(key not in each or each[key] != first.get(key) for each in settings)]
    differ = [key for key in differ if key != "run_dir" and not (of_numbers and (is_free(key) or key == "seed"))]
    kinds = {key.rpartition(".")[0] for key in differ if key.rpartition(".")[2] in ("kind", "backbone")}
    return [key for key in differ if all(key in each for each in settings) or not _is_below(key, kinds)]


def _is_below(key: str, sections: set[str]) -> bool:
    return key.rpartition(".")[2] not in ("kind", "backbone") and any(key.startswith(f"{each}.") for each in sections)
