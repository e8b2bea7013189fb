"""Rows about what surrounds the computing, and about what was computed: part 4."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import Any

from tests.benchmarks.link_throughput import KINDS, PINNED
from tests.gpu import costs
from tests.gpu.results import Row, Rows
from tests.gpu.running import measured
from tests.gpu.setting import Setting


def rows() -> list[Row]:
    """Part 4."""
    return [
        *(
            Row(f"link: {kind}", 4, "messages between two processes, and copies", partial(_link, kind), _show_link)
            for kind in (*KINDS, PINNED)
        ),
        Row("feed", 4, "images/s of JPEG files, against what the fastest row took", _child("feed"), _show_feed),
        Row("batches", 4, "a step whose batch is on the device, is copied before it, or beside the one before",
            _child("batches"), _show_batches),
        Row("augmentation", 4, "colours and blur of a batch, by the host and by the device", _child("augmentation"),
            _show_augmentation),
        Row("cost of metrics", 4, "a run with nothing observed, with the defaults, with a trace", costs.metrics,
            _show_metrics, group="observed"),
        Row("operations", 4, "what runs on the device in forward, backward and update", _child("operations"),
            _show_operations),
    ]  # fmt: skip


def _child(name: str) -> Any:
    return lambda setting: measured(setting, name)


def _link(kind: str, setting: Setting) -> dict[str, Any]:
    return costs.link(setting, kind)


def _show_link(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    """GB/s, in brackets those of a copy, and how the tensors got across where the link says it."""
    told = (
        f"{size['mb']:g} MB {size['mb'] / 1e3 / size['link']:.3g} ({size['mb'] / 1e3 / size['copy']:.3g})"
        for size in row["sizes"]
    )
    ways = dict.fromkeys(size["way"] for size in row["sizes"] if size.get("way"))
    return "; ".join([f"GB/s (of a copy on the device): {', '.join(told)}", *ways])


def _show_feed(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    given = row["images_per_second"]
    needed = max((found["images_per_second"] for name, found in rows.items() if _trains(name, found)), default=None)
    told = f"{given['workers']:.0f} images/s given by {row['workers']} workers, {given['device']:.0f} with crops alone"
    return f"{told}; " + (f"{needed:.0f} needed" if needed else "what is needed was not measured")


def _trains(name: str, found: dict[str, Any]) -> bool:
    """Whether a row is a network at work."""
    return isinstance(found.get("images_per_second"), float) and ":" in name


def _show_batches(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    told = ", ".join(f"{name} {spent:.2f}" for name, spent in row["milliseconds"].items())
    return f"ms of a step with a batch of {row['megabytes']:.1f} MB: {told}"


def _show_augmentation(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    told = ", ".join(f"{name} {spent:.1f}" for name, spent in row["milliseconds"].items())
    return f"ms for {row['batch']} images of {row['side']} pixels: {told}"


def _show_metrics(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    rates = row["images_per_second"]
    return ", ".join(f"{name} {rate / rates['off']:.3f}" for name, rate in rates.items()) + " of the images/s of off"


def _show_operations(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    failed = [f"not tried: {name}: {why}" for name, why in row["failed"].items()]
    warned = ", ".join(row["not_deterministic"]) or "none"
    names = sorted({name.rpartition(".")[0] for name in row["operations"]})
    kinds = f"{len(names)} operators; torch warns of as not deterministic: {warned}"
    return "\n".join([kinds, *textwrap.wrap(" ".join(names), 100), *failed])
