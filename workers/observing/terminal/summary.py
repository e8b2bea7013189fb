"""The summary at the end of a run: one screen with results, paths and the next commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from workers.observing.headroom import headroom_in_words
from workers.observing.observer import Event
from workers.observing.standard_error import MARK, error_range, may_be_chance, tested_on
from workers.observing.terminal.console import Console
from workers.observing.terminal.step_format import clock
from workers.run.files import RunDir, relative_to_cwd

FULL_WIDTH = 78
"""Width of the table with gains, without the time for copying; with it, it is wider than most terminals."""
ACCURACY = 17
"""Of that, for the text of each column of accuracies; `100.0` and `~` may need more."""
COLUMNS = {"block": 5, "trunk": 11, "expansion": 11, "busy": 6, "starved": 7, "blocked": 7, "copying": 7}
"""Columns of the table with their minimum widths; the last ones are dropped first."""
ACCURACIES = ("trunk", "expansion")
SHARES = {"busy": "busy", "starved": "wait_input", "blocked": "wait_output", "copying": "copying"}
"""Columns, and their keys in `report.json`."""
CELL = 3
"""Columns of a terminal that a column of the table takes beside its text."""
BORDERS = 3
"""Rows that the borders of the table take."""
MOST_LINES = 4
"""Maximum number of lines about alarms and restarts."""
UNBOUNDED = 1000
"""Rows of a file: no limit."""
RANKS = (
    "nonfinite", "mismatch", "collapse", "silent", "restart", "bottleneck", "throttled", "starved", "tracker",
)  # fmt: skip
"""Names of events by importance."""
KINDS = ("alarm", "restart", "note")


def print_summary(
    terminal: Console, run: RunDir, report: dict[str, Any], events: Sequence[Event], notes: Sequence[str]
) -> None:
    """Print accuracy and time of every block, problems, and the next commands; with `-q` only where the results are.

    Args:
        terminal: the console.
        run: the run that has ended.
        report: as in `report.json`.
        events: of the run, oldest first.
        notes: further sentences.
    """
    place = shlex.quote(str(relative_to_cwd(run.path)))
    following = [f"next: onward evaluate {place}", f"      onward report {place}"]
    most = _room(terminal, run, report, [*notes, *following]) - 2  # two lines for the counts and for `and N more`
    told = incidents(events, max(0, min(most, MOST_LINES)))
    print_report(terminal, run, report, [*notes, *(_in_one_row(line, terminal) for line in told)], following)


def print_report(
    terminal: Console,
    run: RunDir,
    report: dict[str, Any],
    notes: Sequence[str] = (),
    following: Sequence[str] = (),
) -> None:
    """Print the contents of `report.json`, `notes`, the path of the run, and the next commands."""
    terminal.show(_table(report, terminal, borders=_room(terminal, run, report, [*notes, *following]) >= BORDERS))
    for sentence in [*_remarks(report), *notes]:
        terminal.say(sentence)
    terminal.warn(_closing(run, report))
    for sentence in following:
        terminal.say(sentence)


def _remarks(report: dict[str, Any]) -> list[str]:
    """The legend of the table, how far the run is from its limit, how exact accuracies are, and skipped steps."""
    legend = "busy: computing; starved: waiting for input; blocked: for room; rest: copying"
    return [legend, *headroom_in_words(report), *_exactness(report)] + [
        f"stage {shares['stage']} skipped {shares['skipped']} steps: loss or gradient not finite"
        for shares in report["stages"]
        if shares["skipped"]
    ]


def _exactness(report: dict[str, Any]) -> list[str]:
    """The standard error of the accuracies, where it is known on how many images they were measured."""
    images = tested_on(report)
    rows = [*report.get("untrained", ()), *report.get("trained", ())]
    shares = [row[feature] for row in rows for feature in ACCURACIES if row[feature] is not None]
    if images is None or not shares:
        return []
    doubtful = any(_gain(*pair, images).startswith(MARK) for feature in ACCURACIES for pair in _pairs(report, feature))
    first = f"{MARK} within two standard errors; one" if doubtful else "one standard error"
    return [f"{first} is {error_range(shares, images)} points ({images} test images)"]


def _closing(run: RunDir, report: dict[str, Any]) -> str:
    """The last line of a run."""
    rate = f"{report['images_per_second']:.0f} images/s" if report["images_per_second"] else "too short for a rate"
    seconds = f" in {clock(report['seconds'])}" if report.get("seconds") else ""
    return (
        f"{report['images']} images{seconds}, {rate}{_goodput(report)}  ·  everything is in {relative_to_cwd(run.path)}"
    )


def _goodput(report: dict[str, Any]) -> str:
    """Only of a run that has lost time to more than its start; an earlier version did not know it."""
    goodput = report.get("goodput") or {}
    lost = goodput.get("lost") or {}
    return f", goodput {100 * goodput['ratio']:.1f} %" if lost.get("restart") or lost.get("repeat") else ""


def _room(terminal: Console, run: RunDir, report: dict[str, Any], more: Sequence[str]) -> int:
    """Rows of the screen that remain below a table without borders and these sentences; a file has no limit."""
    if not terminal.out.is_interactive:
        return UNBOUNDED
    width, height = terminal.out.size
    sentences = [_title(report), *_remarks(report), _closing(run, report), *more]
    taken = 1 + len(report["stages"]) + sum(-(-len(sentence) // width) for sentence in sentences)
    return height - 1 - taken  # the last row is the prompt's


def incidents(events: Iterable[Event], most: int = MOST_LINES) -> list[str]:
    """Counts of alarms, restarts and notes, and the first of each by importance, at most `most`.

    A resumed run is not counted as a restart.
    """
    found = [event for event in events if event.kind in KINDS and (event.kind, event.stage) != ("restart", None)]
    if not found:
        return []
    counts = Counter(event.kind for event in found)
    firsts: dict[tuple[str, int | None], Event] = {}
    for event in found:
        firsts.setdefault((event.name, event.stage), event)
    ordered = sorted(firsts.values(), key=lambda e: RANKS.index(e.name) if e.name in RANKS else len(RANKS))
    lines = [f"  {event.kind}: {event.text}" for event in ordered[:most]]
    if len(ordered) > most:
        lines.append(f"  and {len(ordered) - most} more, see events.jsonl")
    counted = ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items())
    return [f"{counted}:", *lines]


def _in_one_row(sentence: str, terminal: Console) -> str:
    """Cut to the width of a terminal; `events.jsonl` and a log have the whole sentence."""
    width = terminal.out.width
    if not terminal.out.is_interactive or len(sentence) <= width:
        return sentence
    return f"{sentence[: width - 3]}..."


def _title(report: dict[str, Any]) -> str:
    return "linear probe, % (before → after training); share of time" if "trained" in report else "share of time"


def _table(report: dict[str, Any], terminal: Console, borders: bool) -> Table:
    """The table with the columns that fit; with gains of accuracy where it is wide, with borders if asked."""
    width = terminal.out.width
    probed, full = "trained" in report, width >= FULL_WIDTH
    style = box.HEAVY_HEAD if full and borders else None
    table = Table(title=terminal.spelled(_title(report)), title_justify="left", box=style, pad_edge=full)
    names = [name for name in COLUMNS if probed or name not in ACCURACIES]
    accuracies = {
        feature: [terminal.spelled(cell) for cell in _accuracies(report, feature, full)]
        for feature in (ACCURACIES if probed else ())
    }
    if probed and full:
        needed = FULL_WIDTH + sum(max(max(map(len, column), default=0) - ACCURACY, 0) for column in accuracies.values())
        if width < needed + COLUMNS["copying"] + CELL:
            names.remove("copying")
        if width < needed:
            names.remove("blocked")
    while not full and len(names) > 1 and sum(2 + COLUMNS[name] for name in names) - 2 > width:
        names.pop()
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row, shares in enumerate(report["stages"]):
        cells = {"block": str(shares["stage"])}
        # Runs of earlier versions did not measure copying.
        cells |= {name: f"{100 * shares.get(key, 0.0):.1f} %" for name, key in SHARES.items()}
        cells |= {feature: column[row] for feature, column in accuracies.items()}
        table.add_row(*(cells[name] for name in names))
    return table


def _pairs(report: dict[str, Any], feature: str) -> list[tuple[float, float]]:
    """Accuracies before and after training, of every block that has both."""
    rows = zip(report.get("untrained", ()), report.get("trained", ()), strict=True)
    pairs = ((before[feature], after[feature]) for before, after in rows)
    return [(before, after) for before, after in pairs if before is not None and after is not None]


def _accuracies(report: dict[str, Any], feature: str, full: bool) -> list[str]:
    """The cells of a column, with numbers below numbers."""
    pairs, images = _pairs(report, feature), tested_on(report)
    first, last = (max((len(f"{100 * pair[side]:.1f}") for pair in pairs), default=0) for side in (0, 1))
    room = max((len(_gain(*pair, images)) for pair in pairs), default=0)
    cells = []
    for row in range(len(report["stages"])):
        before, after = report["untrained"][row][feature], report["trained"][row][feature]
        if before is None or after is None:  # end to end, only the last block has a head
            cells.append("-")
            continue
        gained = f" {_gain(before, after, images):>{room}}" if full else ""
        cells.append(f"{100 * before:{first}.1f} → {100 * after:{last}.1f}{gained}")
    return cells


def _gain(before: float, after: float, images: int | None) -> str:
    doubtful = images is not None and may_be_chance(before, after, images)
    return f"{MARK if doubtful else ''}{100 * (after - before):+.1f}"
