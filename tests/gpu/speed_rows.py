"""Rows about speed and memory: ResNet-50 in part 2, ViT-S and what both take in part 3."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.gpu.networks import NETWORKS
from tests.gpu.results import Row, Rows
from tests.gpu.running import measured
from tests.gpu.setting import GIB, Setting
from tests.gpu.speed import WAYS, rate
from workers.stage.flops import TERA, peak_of

STEPS, FEW_STEPS = 30, 4
PIPELINED = {"serial", "two processes", "four processes"}
"""Ways that must end with the same weights."""


def rows() -> list[Row]:
    """Parts 2 and 3."""
    return [row for part, network in ((2, "resnet50"), (3, "vit_s")) for row in of_network(network, part)]


def of_network(network: str, part: int) -> list[Row]:
    """All of one network; that of its memory is in part 3."""
    name = NETWORKS[network]
    found = [
        Row(f"{name}: FLOPs", part, "torch's count of one step", partial(_flops, network), _show_flops),
        Row(
            f"{name}: plain loop", part, "blockwise in one process, as the paper's pseudocode has it",
            partial(_plain, network), partial(_show_rate, name, "blockwise"),
        ),
    ]  # fmt: skip
    found += [
        Row(
            f"{name}: {way}", part, f"onward train {' '.join(overrides)}".strip(), partial(_rate, network, way),
            partial(_show_rate, name, "end_to_end" if way == "end to end" else "blockwise"),
            group=name if way in PIPELINED else None,
        )
        for way, overrides in WAYS.items()
    ]  # fmt: skip
    found.append(
        Row(
            f"{name}: memory",
            3,
            "the account of every stage against the allocator",
            partial(_memory, network),
            _show_memory,
        )
    )
    return found


def _flops(network: str, setting: Setting) -> dict[str, Any]:
    return measured(setting, "flops", network=network)


def _plain(network: str, setting: Setting) -> dict[str, Any]:
    return measured(setting, "plain loop", network=network, steps=_steps(setting))


def _rate(network: str, way: str, setting: Setting) -> dict[str, Any]:
    return rate(setting, network, way, _steps(setting))


def _memory(network: str, setting: Setting) -> dict[str, Any]:
    return measured(setting, "memory", network=network)


def _steps(setting: Setting) -> int:
    return FEW_STEPS if setting.small else STEPS


def _show_flops(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    blocks = ", ".join(f"{number / 1e9:.3g}" for number in row["blocks"])
    return (
        f"GFLOPs an image: blocks {blocks}, all {row['blockwise'] / 1e9:.3g}; end to end {row['end_to_end'] / 1e9:.3g}"
    )


def _show_rate(name: str, kind: str, row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    """Images/s, the ratio to the plain loop, TFLOP/s, the share of the peak, and what the feed took of it."""
    told = [f"{row['images_per_second']:.1f} images/s in batches of {row['batch']}"]
    plain = rows.get(f"{name}: plain loop", {}).get("images_per_second")
    if plain and plain != row["images_per_second"]:
        told.append(f"{row['images_per_second'] / plain:.2f} of the plain loop")
    of_image = rows.get(f"{name}: FLOPs", {}).get(kind)
    if of_image:
        tflops = row["images_per_second"] * of_image / TERA
        peak = peak_of(setting.gpus[0], half=True, tf32=False) if setting.gpus and setting.half else None
        told.append(f"{tflops:.3g} TFLOP/s")
        if peak:
            told.append(f"MFU {100 * TERA * tflops / (peak * used_gpus(row, setting)):.1f} %")
        elif setting.half:
            told.append("MFU unknown: workers/stage/flops.py does not have this card")
    if "feed_wait_share" in row:
        told.append(f"waited {100 * row['feed_wait_share']:.0f} % for images")
    return ", ".join(told)


def used_gpus(row: dict[str, Any], setting: Setting) -> int:
    """How many the row's processes were placed on: `device=auto` gives each its own where there are enough."""
    return min(row.get("processes", 1), len(setting.gpus))


def _show_memory(row: dict[str, Any], rows: Rows, setting: Setting) -> str:
    stages = zip(row["predicted"], row["measured"], strict=True)
    told = [f"{said / GIB:.3g} of {real / GIB:.3g} GiB ({said / real:.3f})" for said, real in stages]
    return "predicted of measured, stages 1 to 4: " + ", ".join(told)
