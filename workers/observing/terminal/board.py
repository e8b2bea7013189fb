"""The state of a run on a terminal: one line for the run, one per stage, one per alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from itertools import accumulate
from textwrap import wrap
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from workers.observing.active_alarms import ActiveAlarms, AlarmKey
from workers.observing.observer import Event, RunFacts
from workers.observing.terminal.shares import Shares, StageClock
from workers.observing.terminal.step_format import LONGEST_LOSS, accuracies, clock, epochs, loss_in_words, speed

GAP = "  "
LEAST_BAR, MOST_BAR = 4, 40
MARGIN = 3
"""Free columns: some terminals wrap at the last one, and the `^C` that a terminal echoes takes two."""
MOST_ALARMS = 3
SIGNS = {
    "busy": ("green", "█", "#"), "starved": ("yellow", "░", "."), "blocked": ("magenta", "▒", "o"),
    "copying": ("cyan", "▓", "="),
}  # fmt: skip
"""Kinds of time: colour, character, and ASCII character."""


@dataclass
class Board:
    """Renders to the width it is given, in rich's thread, while the main thread updates it.

    Args:
        facts: of the run.
        active: which alarms are on.
    """

    facts: RunFacts
    active: ActiveAlarms
    _: KW_ONLY
    _line: Mapping[str, Any] = field(default_factory=dict)
    _clocks: dict[int, StageClock] = field(default_factory=dict)
    _shares: dict[int, Shares] = field(default_factory=dict)
    _probes: dict[int, float] = field(default_factory=dict)

    def step_done(self, line: Mapping[str, Any]) -> None:
        """Update from a line of `metrics.jsonl`."""
        for stage, probe in zip(line["stages"], accuracies(line), strict=True):
            number = stage["stage"]
            watch = self._clocks.setdefault(number, StageClock())
            watch.step_done(stage["added"])
            if (shares := watch.shares()) is not None:
                self._shares = {**self._shares, number: shares}
            if probe is not None:
                self._probes = {**self._probes, number: probe}
        self._line = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as many lines as fit into the window, each exactly one row."""
        line, alarms = self._line, self.active.on
        if not line:
            return
        width, plain = options.max_width - MARGIN, options.ascii_only
        rows = self._head(line, width, plain)
        table = self._table(line, alarms, width, plain)
        below = [
            Text(f"! {_who(alarm)}: {alarm.name} since step {alarm.step}", "bold red")
            for alarm in list(alarms.values())[:MOST_ALARMS]
        ]
        room = console.height - 1
        if len(rows) + len(table) + len(below) > room:
            losses = " ".join(loss_in_words(stage["loss"]) for stage in line["stages"])
            table = [Text(part) for part in wrap(f"loss {losses}", max(width, LONGEST_LOSS))]
        for row in [*rows, *table, *below][:room]:
            row.truncate(width, overflow="crop")
            yield from row.render(console)
            yield Segment.line()

    def _head(self, line: Mapping[str, Any], width: int, plain: bool) -> list[Text]:
        """Step, epoch, throughput, time left, and a progress bar, on the same row if there is room."""
        done, total = line["step"] + 1, self.facts.total_steps
        parts = [f"step {done}/{total}", epochs(line["step"], total, self.facts.steps_per_epoch), speed(line).strip()]
        if line.get("eta_seconds") is not None:
            parts.append(f"{clock(line['eta_seconds'])} left")
        text = GAP.join(parts)
        while len(text) > width and len(parts) > 2:
            del parts[1]
            text = GAP.join(parts)
        share = f"{100 * done // total} %"
        room = width - len(text) - len(share) - 2 * len(GAP)
        beside = room >= 3 * LEAST_BAR
        size = max(min(room if beside else width - len(share) - len(GAP), MOST_BAR), 0)
        drawn, (sign, rest) = size * done // total, "=-" if plain else "━─"
        bar = Text.assemble((sign * drawn, "cyan"), (rest * (size - drawn), "dim"), GAP, share)
        return [Text.assemble((text, "bold"), GAP, bar)] if beside else [Text(text, "bold"), bar]

    def _table(self, line: Mapping[str, Any], alarms: Mapping[AlarmKey, Event], width: int, plain: bool) -> list[Text]:
        """A header row, and one row per stage."""
        widths = _fitting(bool(self._probes), width)
        of_step = {stage["stage"]: stage for stage in line["stages"]}
        troubled = {stage for _, stage in alarms}
        rows = [_titles(widths, plain)]
        for number in sorted({*range(1, self.facts.stages + 1), *of_step}):
            cells: dict[str, str | Text] = {"stage": str(number)}
            if (stage := of_step.get(number)) is not None:
                depth = self.facts.config.get("link", {}).get("depth")
                cells |= {"loss": loss_in_words(stage["loss"]), "queue": str(stage["queue_depth"])}
                cells["queue"] += f"/{depth}" if depth else ""
            if (shares := self._shares.get(number)) is not None:
                cells["bar"] = time_bar(shares, widths.get("bar", 0), plain)
                cells |= {name: f"{100 * getattr(shares, name):.0f} %" for name in SIGNS}
            if number in self._probes:
                cells["probe"] = f"{100 * self._probes[number]:.1f} %"
            style = "bold red" if number in troubled else "" if number in of_step else "dim"
            rows.append(_row("!" if number in troubled else " ", cells, widths, style))
        return rows


def time_bar(shares: Shares, size: int, plain: bool = False) -> Text:
    """Shares of time as `size` characters side by side; in ASCII if `plain`."""
    upto = [0.0, *accumulate((shares.busy, shares.starved, shares.blocked)), 1.0]
    bounds = [round(size * min(share, 1.0)) for share in upto]
    bar = Text()
    for (style, *signs), start, end in zip(SIGNS.values(), bounds, bounds[1:], strict=False):
        bar.append(signs[plain] * (end - start), style)
    return bar


def _fitting(probed: bool, width: int) -> dict[str, int]:
    """Names and widths of the columns that fit; stage and loss are dropped last."""
    widths = {"stage": 5, "loss": 8, "bar": LEAST_BAR, "busy": 6, "starved": 9, "blocked": 9, "copying": 9}
    widths |= {"queue": 5, "probe": 7}
    if not probed:
        del widths["probe"]
    for name in ("copying", "blocked", "queue", "bar", "starved", "probe", "busy"):
        if _taken(widths) <= width:
            break
        widths.pop(name, None)
    if "bar" in widths:
        widths["bar"] = min(widths["bar"] + width - _taken(widths), MOST_BAR)
    return widths


def _taken(widths: Mapping[str, int]) -> int:
    """Width of a row, including the mark in front."""
    return 1 + sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _titles(widths: Mapping[str, int], plain: bool) -> Text:
    """Column names; a share of time has its character of the bar in front."""
    titles: dict[str, str | Text] = {name: name for name in widths if name != "bar"}
    for name, (style, *signs) in SIGNS.items():
        titles[name] = Text.assemble((signs[plain], style), (f" {name}", "dim"))
    return _row(" ", titles, widths, "dim")


def _row(mark: str, cells: Mapping[str, str | Text], widths: Mapping[str, int], style: str) -> Text:
    """Right-aligned cells, a dash where there is none; a bar is as wide as its column."""
    row = Text(mark, style, end="")
    for number, (name, width) in enumerate(widths.items()):
        cell = cells.get(name, "" if name == "bar" else "-")
        text = Text(cell, style) if isinstance(cell, str) else cell
        row.append(GAP if number else "").append(" " * (width - text.cell_len)).append_text(text)
    return row


def _who(event: Event) -> str:
    return "run" if event.stage is None else f"stage {event.stage}"
