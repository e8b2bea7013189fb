"""What a run ends with: one screen that says what came out, where it is, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from workers.observing.observer import Event
from workers.observing.terminal.voice import Terminal
from workers.observing.terminal.words import clock
from workers.run_files import RunDir

FULL_WIDTH = 78
"""Columns of the table with all that it can have."""
MOST_LINES = 4
"""Sentences about alarms and restarts."""
RANKS = ("nonfinite", "collapse", "silent", "restart", "bottleneck", "starved", "tracker")
"""Names of events, what matters most first."""
KINDS = ("alarm", "restart", "note")


def print_summary(
    terminal: Terminal, run: RunDir, report: dict[str, Any], events: Sequence[Event], notes: Sequence[str]
) -> None:
    """Accuracy and time of every block, what went wrong, and what to do next; with `-q` where everything is.

    Args:
        terminal: where to.
        run: that has ended.
        report: as in `report.json`.
        events: of the run, oldest first.
        notes: further sentences.
    """
    print_report(terminal, run, report, [*notes, *(_in_one_row(line, terminal) for line in incidents(events))])
    place = from_here(run.path)
    terminal.say(f"next: onward evaluate {place}\n      onward report {place}")


def print_report(terminal: Terminal, run: RunDir, report: dict[str, Any], notes: Sequence[str] = ()) -> None:
    """What `report.json` says, and `notes`."""
    if not terminal.quiet:
        terminal.console.print(_table(report, terminal.console.width))
    terminal.say("busy: computing; starved: waiting for input; blocked: waiting for room")
    for shares in report["stages"]:
        if shares["skipped"]:
            terminal.say(f"stage {shares['stage']} skipped {shares['skipped']} steps: loss or gradient not finite")
    for note in notes:
        terminal.say(note)
    rate = f"{report['images_per_second']:.0f} images/s" if report["images_per_second"] else "one step"
    seconds = f" in {clock(report['seconds'])}" if report.get("seconds") else ""
    terminal.warn(f"{report['images']} images{seconds}, {rate}  ·  everything is in {from_here(run.path)}")


def incidents(events: Iterable[Event]) -> list[str]:
    """How many alarms, restarts and notes there were, and the first of each in order of importance.

    That the run goes on from a snapshot is none of them.
    """
    found = [event for event in events if event.kind in KINDS and (event.kind, event.stage) != ("restart", None)]
    if not found:
        return []
    counts = Counter(event.kind for event in found)
    firsts: dict[tuple[str, int | None], Event] = {}
    for event in found:
        firsts.setdefault((event.name, event.stage), event)
    ordered = sorted(firsts.values(), key=lambda e: RANKS.index(e.name) if e.name in RANKS else len(RANKS))
    lines = [f"  {event.kind}: {event.text}" for event in ordered[:MOST_LINES]]
    if len(ordered) > MOST_LINES:
        lines.append(f"  and {len(ordered) - MOST_LINES} more, see events.jsonl")
    counted = ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items())
    return [f"{counted}:", *lines]


def _in_one_row(sentence: str, terminal: Terminal) -> str:
    """Cut where a screen ends; `events.jsonl` and a log have all of it."""
    width = terminal.console.width
    if not terminal.console.is_interactive or len(sentence) <= width:
        return sentence
    return f"{sentence[: width - 3]}..."


def from_here(path: Path) -> Path:
    """As a user who stands here would write it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _table(report: dict[str, Any], width: int) -> Table:
    """With how much every accuracy has gained, and with borders, where there is room."""
    probed, full = "trained" in report, width >= FULL_WIDTH
    title = "linear probe, % (untrained → trained); share of time" if probed else "share of time"
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD if full else None, pad_edge=full)
    accuracies = ("trunk", "expansion") if probed else ()
    for name in ("block", *accuracies, "busy", "starved", "blocked"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, shares in enumerate(report["stages"]):
        scores = []
        if probed:
            before, after = report["untrained"][row], report["trained"][row]
            scores = [_gain(before[feature], after[feature], full) for feature in accuracies]
        times = [f"{100 * shares[name]:.1f} %" for name in ("busy", "wait_input", "wait_output")]
        table.add_row(str(shares["stage"]), *scores, *times)
    return table


def _gain(before: float | None, after: float | None, full: bool) -> str:
    if before is None or after is None:  # end to end, only the last block has a head
        return "-"
    gained = f" {100 * (after - before):+.1f}" if full else ""
    return f"{100 * before:.1f} → {100 * after:.1f}{gained}"
