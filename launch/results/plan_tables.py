"""What `onward plan` has found, as tables: a row for each stage, or a column for each of two settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from launch.partition.findings import PlanFindings, SettingFindings, StageFindings, WhatIfFindings
from launch.results.grid import Grid

GIB = 2**30
LONG = 24
"""Signs of two names of units, beyond which what they share is left out of the second."""


def digits(value: float, count: int = 3) -> str:
    """A number with so many significant digits, and never with an exponent."""
    return f"{value:,.0f}" if value >= 10 ** (count - 1) else f"{value:#.{count}g}".removesuffix(".")


def plan_grid(found: PlanFindings, title: str) -> Grid:
    """The stages of the plan."""
    stages = found.plan.stages
    heads, cells = zip(*(column for column in _columns(found.plan, stages)), strict=True)
    return Grid(title, heads, tuple(zip(*cells, strict=True)), keys=2)


def _columns(setting: SettingFindings, stages: Sequence[StageFindings]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The heading and the cells of every column."""
    yield ("stage",), [str(stage.stage) for stage in stages]
    yield ("units",), [units_in_words(stage.units) for stage in stages]
    yield ("repli-", "cas"), [str(len(stage.devices)) for stage in stages]
    yield ("device",), [devices_in_words(stage.devices) for stage in stages]
    if any(stage.recompute != "none" or stage.chunk for stage in stages):
        yield ("recompute",), [recompute_in_words(stage) for stage in stages]
    yield ("memory,", "GiB of"), [memory_in_words(stage) for stage in stages]
    yield ("ms", "a step"), [digits(1000 * stage.seconds) for stage in stages]
    yield ("busy,", "%"), [f"{100 * stage.busy:.0f}" for stage in stages]
    steps = setting.images_per_second / _batch(setting)
    yield ("link,", "GB/s"), [digits(stage.carried * steps / 1e9, 2) for stage in stages]


def _batch(setting: SettingFindings) -> int:
    size: int = setting.config["data"]["batch_size"]
    return size


def what_if_grid(found: WhatIfFindings, changes: Sequence[str]) -> Grid:
    """Both settings, a row for each number."""
    given, changed = found.given, found.changed
    rows = [
        ("images/s", *(digits(each.images_per_second) for each in (given, changed))),
        ("bound of the slowest stage", *(digits(each.bound) for each in (given, changed))),
        ("limit", *(limit_in_words(each) for each in (given, changed))),
        ("devices", *(str(each.devices) for each in (given, changed))),
        ("links", *(each.link for each in (given, changed))),
        *(
            (f"busy, stage {index + 1}, %", *(_busy(each, index) for each in (given, changed)))
            for index in range(max(len(given.stages), len(changed.stages)))
        ),
        ("memory", *(fit_in_words(each) for each in (given, changed))),
    ]
    return Grid("as it is, and what if", (("",), ("as it is",), tuple(changes)), tuple(rows))


def _busy(setting: SettingFindings, index: int) -> str:
    return f"{100 * setting.stages[index].busy:.0f}" if index < len(setting.stages) else "-"


def units_in_words(units: Sequence[str]) -> str:
    """`layer1.0 to layer2.1`; of long names without the modules around them, the second without what both share."""
    first, last = units[0], units[-1]
    if first == last:
        return first if len(first) <= LONG else first.rpartition(".")[2]
    text = f"{first} to {last}"
    if len(text) <= LONG:
        return text
    first, last = (name if name.count(".") < 2 else name.rpartition(".")[2] for name in (first, last))
    stems = [re.sub(r"\d+$", "", name) for name in (first, last)]
    return f"{first} to {last[len(stems[1]) :] if stems[0] == stems[1] and last != stems[1] else last}"


def devices_in_words(devices: Sequence[str]) -> str:
    """`cuda:0`, `cuda:0-3`, `cpu`; on several hosts `2: cuda:0-7`, or `2-4` for many."""
    names = list(dict.fromkeys(devices))
    if len(names) == 1:
        return names[0]
    hosts = list(dict.fromkeys(name.rpartition(": ")[0] for name in names))
    if len(hosts) > 1:
        return f"hosts {hosts[0]}-{hosts[-1]}"
    numbers = [name.rpartition(":")[2] for name in names]
    return f"{names[0]}-{numbers[-1]}"


def recompute_in_words(stage: StageFindings) -> str:
    """What it computes again, and the slices of its head."""
    chunk = f"chunk {stage.chunk}" if stage.chunk else ""
    return ", ".join(part for part in (stage.recompute if stage.recompute != "none" else "", chunk) if part) or "-"


def memory_in_words(stage: StageFindings) -> str:
    """`12.3 / 79.1`, GiB."""
    return f"{_gib(stage.needs)} / {_gib(stage.has)}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def fit_in_words(setting: SettingFindings) -> str:
    """Whether devices hold it."""
    return "fits" if setting.fits else "does not fit"


def limit_in_words(setting: SettingFindings) -> str:
    """`stage 2`, `link into stage 3`, `feed`."""
    return f"link into {setting.limiting}" if setting.limit == "link" else setting.limiting
