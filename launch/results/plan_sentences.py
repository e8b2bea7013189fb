"""What `onward plan` has found, in sentences: how fast, what limits it, what would help, what a device more brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from launch.partition.findings import PlanFindings, SettingFindings, StageFindings
from launch.partition.request import PlanRequest
from launch.results.plan_tables import GIB, digits, limit_in_words

MATTERS = 0.02
"""Share of the images/s from which on a difference is worth a sentence."""
MUCH = 0.5
"""Share of a stage's time from which on its head is named."""


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """How long a run is.

    Args:
        epochs: of the run.
        images: of all steps together; None where the number of images in the data set is not known.
    """

    epochs: int
    images: int | None

    def seconds(self, setting: SettingFindings) -> float | None:
        """Of a setting, with the time in which its pipeline fills."""
        return None if self.images is None else setting.fill + self.images / setting.images_per_second


def plan_sentences(found: PlanFindings, request: PlanRequest, length: RunLength) -> list[str]:
    """All of them but the notes, each a line."""
    plan = found.plan
    lines = [_how_fast(found, length), *limits(plan), *_would_help(found, request), *_next(found, request)]
    lines += recomputed(plan)
    lines.append(f"links: {plan.link}, as {'on one host' if request.hosts == 1 else 'on several hosts'}")
    return lines


def _how_fast(found: PlanFindings, length: RunLength) -> str:
    plan, now = found.plan, found.now
    rate = f"{digits(plan.images_per_second)} images/s planned"
    lasts, lasted = (hours_in_words(length.seconds(setting)) for setting in (plan, now))
    time = f": {length.epochs} epochs in {lasts}" if lasts else ""
    if not now.fits:
        return f"{rate}{time}; as it is the run does not fit"
    times = plan.images_per_second / now.images_per_second
    instead = f", not {lasted}" if lasted != lasts else ""
    on = "" if now.devices == plan.devices else f" on {now.devices} device{'s' if now.devices > 1 else ''}"
    return f"{rate}, {digits(now.images_per_second)} as it is{on} (x {times:.2f}){time}{instead}"


def hours_in_words(seconds: float | None) -> str:
    """`2 min`, `3 h 20 min`, `12 days 5 h`; two units at most. Empty for a time that is not known."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h"


def limits(setting: SettingFindings) -> Iterator[str]:
    """What bounds the images/s."""
    if setting.limit == "stage":
        stage = limiting_stage(setting)
        busy = f"{100 * stage.busy:.0f} % busy"
        yield f"limit: {setting.limiting}, {busy}; its computing alone allows {_rate(setting.bound)}"
        return
    why = "makes no more" if setting.limit == "feed" else "carries no more"
    yield f"limit: the {limit_in_words(setting)} {why}; the slowest stage alone would allow {_rate(setting.bound)}"


def limiting_stage(setting: SettingFindings) -> StageFindings:
    """The stage that bounds the images/s, or the longest of its process."""
    numbers = [int(number) for number in setting.limiting.rpartition(" ")[2].split("-")]
    return max(setting.stages[numbers[0] - 1 : numbers[-1]], key=lambda stage: stage.seconds)


def _rate(images: float) -> str:
    return f"{digits(images)} images/s"


def _would_help(found: PlanFindings, request: PlanRequest) -> Iterator[str]:
    plan = found.plan
    if found.fed is not None:
        times = found.fed.images_per_second / plan.images_per_second
        workers = ceil(max(plan.config["data"]["workers"], 1) * times)
        on = "" if found.fed.devices == plan.devices else f" on {found.fed.devices} devices"
        more = _more(found.fed.images_per_second, plan)
        yield f"  would help: data.workers={workers}, or packed copies; with images at hand {more}{on}"
    if plan.limit == "link":
        codec = plan.config["link"]["codec"]
        ways = ["link.codec=bf16 (loses precision)"] if codec == "none" and _width(plan) == 4 else []
        ways += ["fewer hosts"] if request.hosts > 1 else []
        yield f"  would help: {', '.join([*ways, 'a faster way between the two'])}"
    if plan.limit == "stage":
        stage = limiting_stage(plan)
        if stage.end > MUCH * stage.seconds:
            yield f"  its head and loss are {100 * stage.end / stage.seconds:.0f} % of that: a smaller head would help"
        elif len(stage.units) == 1 and request.keep_cuts is False:
            yield f"  it is one unit, {stage.units[0]}, which cannot be cut: replicas alone would help"
    if found.free is not None and found.free > (1 + MATTERS) * plan.images_per_second:
        yield f"  other cuts (without --keep-cuts): {_more(found.free, plan)}"
    if found.roomy is not None and found.roomy > (1 + MATTERS) * plan.images_per_second:
        yield f"  memory costs time, too: with more than {plan.stages[0].has / GIB:.0f} GiB {_more(found.roomy, plan)}"


def _width(plan: SettingFindings) -> int:
    return 4 if plan.config["precision"]["dtype"] == "fp32" else 2


def _more(images: float, plan: SettingFindings) -> str:
    return f"{_rate(images)} (x {images / plan.images_per_second:.2f})"


def recomputed(setting: SettingFindings) -> Iterator[str]:
    """What stages compute again to save memory, and the slices of their heads."""
    for value in ("units", "views"):
        if stages := [str(stage.stage) for stage in setting.stages if stage.recompute == value]:
            yield f"computed again: {value} of stage{'s' if len(stages) > 1 else ''} {', '.join(stages)}"
    for chunk in dict.fromkeys(stage.chunk for stage in setting.stages if stage.chunk):
        stages = [str(stage.stage) for stage in setting.stages if stage.chunk == chunk]
        yield f"head in slices of {chunk} images: stage{'s' if len(stages) > 1 else ''} {', '.join(stages)}"


def _next(found: PlanFindings, request: PlanRequest) -> Iterator[str]:
    plan = found.plan
    if plan.devices < request.devices:
        yield f"{plan.devices} of the {request.devices} devices do it; the others bring nothing"
    elif found.more is None:
        yield "one device more cannot be used"
    elif found.more > (1 + MATTERS) * plan.images_per_second:
        yield f"with one device more: {_more(found.more, plan)}"
    else:
        yield "one device more would bring nothing"
