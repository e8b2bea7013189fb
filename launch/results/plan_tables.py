"""What `onward plan` has found, as tables: a row for each stage, or a column for each of two settings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from launch.partition.findings import PlanFindings, SettingFindings, WhatIfFindings
from launch.plan.memories import ENCODER_LAYER
from launch.results.grid import Grid

GIB = 2**30
LONG = 24
"""Signs of two names of units, beyond which what they share is left out of the second."""


def digits(value: float, count: int = 3) -> str:
    """A number with so many digits, of which those behind the point are at most two."""
    whole = len(str(int(value)))
    return f"{value:,.{max(min(count - whole, 2), 0)}f}"


def plan_grid(found: PlanFindings, title: str) -> Grid:
    """The stages of the plan; what all of them have alike stands in a heading."""
    stages = found.plan.stages
    on_gpu = any(device != "cpu" for stage in stages for device in stage.devices)
    several = any(": " in device for stage in stages for device in stage.devices)
    steps = found.plan.images_per_second / _batch(found.plan)
    columns = [
        (("stage",), [str(stage.stage) for stage in stages]),
        (("units",), [units_in_words(stage.units) for stage in stages]),
        (("repli-", "cas"), [str(len(stage.devices)) for stage in stages]),
        (("host:", "GPU") if several else ("GPU",), [devices_in_words(stage.devices) for stage in stages]),
        (("GiB of", _gib(stages[0].has)), [_gib(stage.needs) for stage in stages]),
        (("ms a", "step"), [digits(1000 * stage.seconds) for stage in stages]),
        (("busy", "%"), [f"{100 * stage.busy:.0f}" for stage in stages]),
        (("GB/s", "in"), [digits(stage.carried * steps / 1e9) for stage in stages]),
    ]
    shown = [column for column in columns if column[0][-1] != "GPU" or on_gpu]
    rows = tuple(zip(*(cells for _, cells in shown), strict=True))
    return Grid(title, tuple(head for head, _ in shown), rows, keys=2, ruled=False)


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
    first, last = (name.replace(ENCODER_LAYER, "layer_") for name in (units[0], units[-1]))
    text = first if first == last else f"{first} to {last}"
    if len(text) <= LONG:
        return text
    (word, number), (last_word, last_number) = map(_word_and_number, (first, last))
    if first == last:
        return word + number
    return f"{word}{number} to {'' if word == last_word and last_number else last_word}{last_number}"


def _word_and_number(name: str) -> tuple[str, str]:
    """The last module of a path that has a name, and the numbers behind it: `block_` and `3`, `features.` and `5.1`."""
    word = re.sub(r"\d+(\.\d+)*$", "", name)
    return word.rstrip(".").rpartition(".")[2] + "." * word.endswith("."), name.removeprefix(word)


def devices_in_words(devices: Sequence[str]) -> str:
    """Numbers of GPUs: `0`, `0-3`; with their host `2: 0-7`, or of several hosts `2-4:`; of a processor `cpu`."""
    parts = [name.rpartition("cuda:") for name in devices]
    hosts, numbers = (list(dict.fromkeys(part[at] for part in parts)) for at in (0, 2))
    if len(hosts) > 1:
        return f"{hosts[0].strip(': ')}-{hosts[-1].strip(': ')}:"
    return hosts[0] + (numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def fit_in_words(setting: SettingFindings) -> str:
    """Whether devices hold it."""
    return "fits" if setting.fits else "does not fit"


def limit_in_words(setting: SettingFindings) -> str:
    """`stage 2`, `link into stage 3`, `feed`."""
    return f"link into {setting.limiting}" if setting.limit == "link" else setting.limiting
