"""Keys that another key's value makes idle: who gives one of them expects something that will not happen.

`data.root` beside data that need no folder is refused, for the run would train on other images than the user thinks.
Of the others the user is told; a preset may well set what an override of the command line makes idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.config.data import FOLDERS
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Idle:
    """Keys, when they have no effect, and what of the configuration is the reason, in words.

    Args:
        keys: dotted; a section stands for all in it.
        when: whether it is so.
        why: such as `runtime is serial`.
        but: keys of these sections that have an effect all the same.
    """

    keys: tuple[str, ...]
    when: Callable[[Config], bool]
    why: str
    but: tuple[str, ...] = ()


RULES = (
    Idle(
        ("link.kind", "link.depth", "link.timeout", "restart", "max_restarts", "hang_timeout", "data.feed"),
        lambda c: c.in_one_process,
        "one process trains all stages",
    ),
    Idle(("max_restarts",), lambda c: c.restart == "none", "restart is none"),
    Idle(
        ("snapshots.keep_last", "snapshots.keep_every"),
        lambda c: c.snapshots.every is None,
        "snapshots.every is null",
    ),
    Idle(
        ("noise.std", "noise.relative", "noise.placement", "noise.schedule", "noise.final_std"),
        lambda c: all(c.stage(index).noise.kind == "none" for index in range(1, c.num_stages + 1)),
        "noise.kind is none",
    ),
    Idle(
        ("noise.final_std",),
        lambda c: all(c.stage(index).noise.schedule == "constant" for index in range(1, c.num_stages + 1)),
        "noise.schedule is constant",
    ),
    Idle(("metrics.host", "metrics.port", "metrics.page"), lambda c: not c.metrics.enabled, "metrics.enabled is false"),
    Idle(("alarms",), lambda c: not c.alarms.enabled, "alarms.enabled is false", ("alarms.enabled",)),
    Idle(("trace.max_events", "trace.from_step"), lambda c: not c.trace.enabled, "trace.enabled is false"),
    Idle(("data.layout",), lambda c: c.data.name not in FOLDERS, "data.name is no folder of images"),
    Idle(
        ("data.download",),
        lambda c: c.data.name in (*FOLDERS, "packed", "fashion_mnist_10k"),
        "nobody offers this data set",
    ),
    Idle(("data.affinity",), lambda c: c.data.workers == 0, "data.workers is 0"),
    Idle(("data.augment.blur_kernel",), lambda c: c.data.augment.blur_kind == "pil", "data.augment.blur_kind is pil"),
    Idle(("data.augment.patch_scale",), lambda c: not c.has_patch, "no loss takes a patch"),
    Idle(
        ("evaluation.online.lr",), lambda c: not c.evaluation.online.linear, "evaluation.online.linear is false"
    ),
    Idle(("evaluation.online.knn_k",), lambda c: not c.evaluation.online.knn_bank, "evaluation.online.knn_bank is 0"),
    Idle(
        ("evaluation.online.quality_samples",),
        lambda c: not c.evaluation.online.quality_every,
        "evaluation.online.quality_every is 0",
    ),
    Idle(
        ("evaluation.corruptions",),
        lambda c: c.evaluation.corruptions.names == "none",
        "evaluation.corruptions.names is none",
        ("evaluation.corruptions.names",),
    ),
    Idle(
        ("evaluation.few_labels",),
        lambda c: not c.evaluation.few_labels.shares,
        "evaluation.few_labels.shares is empty",
        ("evaluation.few_labels.shares",),
    ),
    Idle(
        ("evaluation.few_labels.epochs", "evaluation.few_labels.lr_backbone", "evaluation.few_labels.lr_classifier"),
        lambda c: not c.evaluation.few_labels.unfrozen,
        "evaluation.few_labels.unfrozen is false",
    ),
    Idle(
        ("evaluation.quality",),
        lambda c: not c.evaluation.quality.enabled,
        "evaluation.quality.enabled is false",
        ("evaluation.quality.enabled",),
    ),
)  # fmt: skip


def idle_keys(config: Config, given: Mapping[str, Any]) -> list[str]:
    """A sentence for every reason why keys that were given have no effect.

    Args:
        config: what was made of them.
        given: what the user gave, nested; a value that is the default needs no effect.

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
    found: dict[str, list[str]] = {}
    for rule in RULES:
        keys = [key for key in leaves if _in(key, rule.keys) and not _in(key, rule.but)]
        if keys and rule.when(config):
            told = found.setdefault(rule.why, [])
            told += [key for key in keys if not any(key in others for others in found.values())]
    return [f"without effect, because {why}: {', '.join(keys)}" for why, keys in found.items() if keys]


def _leaves(given: Mapping[str, Any], default: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of values that are not the default."""
    for name, value in given.items():
        standard = default.get(name) if isinstance(default, Mapping) else None
        if isinstance(value, Mapping):
            yield from _leaves(value, standard, f"{prefix}{name}.")
        elif value != standard and list(_listed(value)) != list(_listed(standard)):
            yield prefix + name


def _listed(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list | tuple) else [value]


def _in(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(place + ".") for place in places)
