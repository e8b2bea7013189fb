"""Finds keys that have no effect because of another key's value.

`data.root` with a data set that reads no folder is an error, because the run would train on other images than intended.
The others only cause a warning, because a preset may set a key that an override on the command line makes idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.config.data import FOLDERS
from pipeline.errors import ConfigError
from pipeline.validation.initial import initial_notes


@dataclass(frozen=True)
class IdleRule:
    """Keys that have no effect under a condition.

    Args:
        keys: dotted keys; a section stands for all keys in it.
        when: the condition, a function of the configuration.
        why: the condition in words, such as `runtime is serial`.
        but: keys of these sections that keep their effect.
    """

    keys: tuple[str, ...]
    when: Callable[[Config], bool]
    why: str
    but: tuple[str, ...] = ()


RULES = (
    IdleRule(
        (
            "link.kind",
            "link.depth",
            "link.timeout",
            "link.rpc_transports",
            "link.device_to_device",
            "network",
            "shared_run_dir",
            "restart",
            "max_restarts",
            "hang_timeout",
            "data.feed",
        ),
        lambda c: c.in_one_process,
        "one process trains all stages",
    ),
    IdleRule(("link.rpc_transports",), lambda c: c.link.kind != "rpc", "link.kind is not rpc"),
    IdleRule(("link.device_to_device",), lambda c: c.link.kind in ("rpc", "p2p"), "link.kind is not queue"),
    IdleRule(("max_restarts",), lambda c: c.restart == "none", "restart is none"),
    IdleRule(
        ("snapshots.keep_last", "snapshots.keep_every"),
        lambda c: c.snapshots.every is None,
        "snapshots.every is null",
    ),
    IdleRule(
        ("noise.std", "noise.relative", "noise.placement", "noise.schedule", "noise.final_std"),
        lambda c: all(c.stage(index).noise.kind == "none" for index in range(1, c.num_stages + 1)),
        "noise.kind is none",
    ),
    IdleRule(
        ("noise.final_std",),
        lambda c: all(c.stage(index).noise.schedule == "constant" for index in range(1, c.num_stages + 1)),
        "noise.schedule is constant",
    ),
    IdleRule(
        ("metrics.host", "metrics.port", "metrics.page"), lambda c: not c.metrics.enabled, "metrics.enabled is false"
    ),
    IdleRule(("alarms",), lambda c: not c.alarms.enabled, "alarms.enabled is false", ("alarms.enabled",)),
    IdleRule(("trace.max_events", "trace.from_step"), lambda c: not c.trace.enabled, "trace.enabled is false"),
    IdleRule(("data.layout",), lambda c: c.data.name not in FOLDERS, "data.name is no folder of images"),
    IdleRule(
        ("data.download",),
        lambda c: c.data.name in (*FOLDERS, "packed", "fashion_mnist_10k"),
        "this data set cannot be downloaded",
    ),
    IdleRule(("data.affinity",), lambda c: c.data.workers == 0, "data.workers is 0"),
    IdleRule(
        ("data.augment.blur_kernel",), lambda c: c.data.augment.blur_kind == "pil", "data.augment.blur_kind is pil"
    ),
    IdleRule(("data.augment.patch_scale",), lambda c: not c.has_patch, "no loss takes a patch"),
    IdleRule(
        ("evaluation.online.lr",), lambda c: not c.evaluation.online.linear, "evaluation.online.linear is false"
    ),
    IdleRule(
        ("evaluation.online.knn_k",), lambda c: not c.evaluation.online.knn_bank, "evaluation.online.knn_bank is 0"
    ),
    IdleRule(
        ("evaluation.online.quality_samples",),
        lambda c: not c.evaluation.online.quality_every,
        "evaluation.online.quality_every is 0",
    ),
    IdleRule(
        ("evaluation.corruptions",),
        lambda c: c.evaluation.corruptions.names == "none",
        "evaluation.corruptions.names is none",
        ("evaluation.corruptions.names",),
    ),
    IdleRule(
        ("evaluation.few_labels",),
        lambda c: not c.evaluation.few_labels.shares,
        "evaluation.few_labels.shares is empty",
        ("evaluation.few_labels.shares",),
    ),
    IdleRule(
        ("evaluation.few_labels.epochs", "evaluation.few_labels.lr_backbone", "evaluation.few_labels.lr_classifier"),
        lambda c: not c.evaluation.few_labels.unfrozen,
        "evaluation.few_labels.unfrozen is false",
    ),
    IdleRule(
        ("evaluation.quality",),
        lambda c: not c.evaluation.quality.enabled,
        "evaluation.quality.enabled is false",
        ("evaluation.quality.enabled",),
    ),
)  # fmt: skip


def idle_keys(config: Config, given: Mapping[str, Any]) -> list[str]:
    """One sentence for each reason why keys that the user set have no effect, or another than they may seem to have.

    Args:
        config: the validated configuration.
        given: the keys that the user set, nested; a value that equals the default is not listed.

    Raises:
        ConfigError: `data.root` is given and nothing is read from it.
    """
    root = given.get("data", {}).get("root") if isinstance(given.get("data"), Mapping) else None
    if root is not None and config.data.name == "fashion_mnist_10k":
        raise ConfigError(
            "data.root",
            f"got '{root}', and data.name=fashion_mnist_10k, which ships with the package, reads no folder",
            "Give data.name=image_folder, or another data set that lies there; or leave data.root out",
        )
    leaves = list(_leaves(given, Config().model_dump(mode="json")))
    by_reason: dict[str, list[str]] = {}
    for rule in RULES:
        keys = [key for key in leaves if _in(key, rule.keys) and not _in(key, rule.but)]
        if keys and rule.when(config):
            listed = by_reason.setdefault(rule.why, [])
            listed += [key for key in keys if not any(key in others for others in by_reason.values())]
    idle = [f"without effect, because {why}: {', '.join(keys)}" for why, keys in by_reason.items() if keys]
    return [*idle, *initial_notes(config)]


def _leaves(given: Mapping[str, Any], default: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of values that are not the default."""
    for name, value in given.items():
        standard = default.get(name) if isinstance(default, Mapping) else None
        if isinstance(value, Mapping):
            yield from _leaves(value, standard, f"{prefix}{name}.")
        elif value != standard and list(_as_items(value)) != list(_as_items(standard)):
            yield prefix + name


def _as_items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list | tuple) else [value]


def _in(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(place + ".") for place in places)
