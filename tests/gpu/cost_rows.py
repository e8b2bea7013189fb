"""Rows about what surrounds the computing, and about what was computed: part 4."""

from __future__ import annotations

import textwrap
from typing import Any

from tests.gpu import costs
from tests.gpu.results import Row, Rows
from tests.gpu.running import measured
from tests.gpu.setting import Setting


def rows() -> list[Row]:
    """Part 4."""
    return [
        Row("links", 4, "messages between two processes over each link, and a copy", costs.links, _show_links),
        Row("feed", 4, "images/s of JPEG files, against what the fastest row took", _child("feed"), _show_feed),
        Row("augmentation", 4, "colours and blur of a batch, by the host and by the device", _child("augmentation"),
            _show_augmentation),
        Row("cost of metrics", 4, "a run with nothing observed, with the defaults, with a trace", costs.metrics,
            _show_metrics, group="observed"),
        Row("operations", 4, "what runs on the device in forward, backward and update", _child("operations"),
            _show_operations),
    ]  # fmt: skip


def _child(name: str) -> Any:
    return lambda setting: measured(setting, name)


def _show_links(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    lines = []
    for mb in sorted({found["mb"] for found in row["links"]}):
        of_size = [found for found in row["links"] if found["mb"] == mb]
        told = ", ".join(f"{found['kind']} {mb / 1e3 / found['link']:.3g}" for found in of_size)
        lines.append(f"{mb:g} MB: {told}; copy on the device {mb / 1e3 / of_size[0]['copy']:.3g} GB/s")
    return "\n".join(lines)


def _show_feed(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    given = row["images_per_second"]
    needed = max((found["images_per_second"] for name, found in rows.items() if _trains(name, found)), default=None)
    told = f"{given['workers']:.0f} images/s given by {row['workers']} workers, {given['device']:.0f} with crops alone"
    return f"{told}; " + (f"{needed:.0f} needed" if needed else "what is needed was not measured")


def _trains(name: str, found: dict[str, Any]) -> bool:
    """Whether a row is a network at work."""
    return isinstance(found.get("images_per_second"), float) and ":" in name


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
