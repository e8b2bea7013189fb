"""What a run ends with: it fits a screen, says what mattered most first, and what to do next."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.errors import UserError
from tests.observing.made_up import alarm, facts, line, stage
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.observer import Event
from workers.observing.standard_error import may_be_chance
from workers.observing.terminal.board import Board, time_bar
from workers.observing.terminal.console import Console
from workers.observing.terminal.shares import Shares, StageClock
from workers.observing.terminal.summary import incidents, print_report, print_summary
from workers.observing.terminal.verbosity import VARIABLE, Verbosity, take_flags
from workers.run.files import RunDir

RUN = RunDir(Path("/elsewhere/runs/quickstart-20261121-195747"))
TOTALS = "149760 images in 3:36, 692 images/s"


def score(block: int, trunk: float, expansion: float | None) -> dict[str, Any]:
    return {"block": block, "trunk": trunk, "expansion": expansion}


def report(stages: int = 4, **more: Any) -> dict[str, Any]:
    shares = {"busy": 0.705, "wait_input": 0.275, "wait_output": 0.02, "skipped": 0}
    return {
        "images": 149760,
        "images_per_second": 692.4,
        "seconds": 216.3,
        "stages": [{"stage": number, **shares} for number in range(1, stages + 1)],
        "untrained": [score(n, 0.641, 0.743 if n == stages else None) for n in range(1, stages + 1)],
        "trained": [score(n, 0.767, 0.817 if n == stages else None) for n in range(1, stages + 1)],
        **more,
    }


def printed(width: int, verbosity: Verbosity = Verbosity.NORMAL, terminal: bool = True, **more: Any) -> list[str]:
    file = io.StringIO()
    console = RichConsole(file=file, width=width, force_terminal=terminal, color_system=None)
    events = [alarm(1, 3, name="starved"), alarm(2, 5), alarm(2, 9), alarm(2, 9, "cleared"), event("restart", 3)]
    print_summary(Console(console, verbosity), RUN, report(**more), [*events, event("restart", None)], ["a note"])
    return file.getvalue().splitlines()


def event(kind: Any, number: int | None) -> Event:
    return Event(
        time=1.0, kind=kind, name=kind, stage=number, step=40, text=f"stage {number} comes back, " + "and so on " * 12
    )


def test_the_goodput_is_told_where_more_than_the_start_was_lost() -> None:
    for lost, told in (({"restart": 0.0, "repeat": 0.0}, ""), ({"restart": 2.0, "repeat": 0.0}, ", goodput 97.5 %")):
        goodput = {"ratio": 0.975, "lost": {"start": 9.0, **lost}}
        assert printed(80, goodput=goodput)[-3].startswith(f"{TOTALS}{told}  ·  everything is in ")


WHY = "stage 1 waits for images 41 % of the time: raise data.workers (it is 2)"
BOUND = {"images_per_second": 1466.0, "share": 0.4722, "stages": [1], "cause": "feed", "reason": WHY}
LIMITS: dict[str, Any] = {"bound": BOUND, "predicted": {"images_per_second": 700.2}}


def test_the_bound_and_the_prediction_stand_beside_what_was_measured() -> None:
    said = printed(80, **LIMITS)
    at = said.index("measured 692 images/s, predicted 700; stage 1 alone would allow 1,466 (47 %)")
    assert said[at + 1] == WHY
    assert not any("allow" in row for row in printed(80)), "an earlier version"


def test_four_stages_fit_a_screen() -> None:
    rows = printed(80)
    assert sum(-(-len(row) // 80) for row in rows) <= 24
    assert max(len(row) for row in rows[:10]) <= 80
    assert "│     1 │ 64.1 → 76.7 +12.6 │                - │ 70.5 % │  27.5 % │   2.0 % │" in rows
    assert "│     4 │ 64.1 → 76.7 +12.6 │ 74.3 → 81.7 +7.4 │ 70.5 % │  27.5 % │   2.0 % │" in rows
    assert rows[rows.index("a note") + 1 : -3] == [
        "3 alarms, 1 restart:",
        "  alarm: nonfinite of stage 2 at step 5",
        f"  {event('restart', 3).kind}: {event('restart', 3).text}"[:77] + "...",
        "  alarm: starved of stage 1 at step 3",
    ]
    assert rows[-3:] == [
        f"{TOTALS}  ·  everything is in /elsewhere/runs/quickstart-20261121-195747",
        "next: onward evaluate /elsewhere/runs/quickstart-20261121-195747",
        "      onward report /elsewhere/runs/quickstart-20261121-195747",
    ]


def test_a_wide_terminal_shows_the_time_for_copying_and_a_narrow_one_names_it() -> None:
    values = report(2)  # as of an earlier version, which did not measure it
    values["stages"][0] |= {"busy": 0.5, "wait_input": 0.25, "wait_output": 0.125, "copying": 0.125}

    def shown(width: int) -> list[str]:
        file = io.StringIO()
        print_report(Console(RichConsole(file=file, width=width)), RUN, values)
        return file.getvalue().splitlines()

    narrow, wide = shown(80), shown(88)
    assert [row.split("│")[-2].strip() for row in wide if row.startswith("│")][:2] == ["12.5 %", "0.0 %"]
    assert [row.split("│")[-2].strip() for row in narrow if row.startswith("│")][:2] == ["12.5 %", "2.0 %"]
    assert not any("copying ┃" in row for row in narrow)
    for rows in (narrow, wide):
        assert "busy: computing; starved: waiting for input; blocked: for room; rest: copying" in rows


@pytest.mark.parametrize(
    ("stages", "limits"), [(1, {}), (4, {}), (10, {}), (12, {}), (1, LIMITS), (4, LIMITS), (11, LIMITS)]
)
def test_more_stages_fit_a_screen_too(stages: int, limits: dict[str, Any]) -> None:
    many = [alarm(number, 5) for number in range(1, 10)]
    console = RichConsole(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    print_summary(Console(console), RUN, report(stages, **limits), many, ["a note"])
    rows = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert sum(-(-len(row) // 80) for row in rows) <= 23, "and the prompt below"
    assert len([row for row in rows if "64.1 → 76.7 +12.6" in row]) == stages
    assert "9 alarms:" in rows
    assert any("┃" in row for row in rows) == (stages <= 4), "borders are the first to go"


@pytest.mark.parametrize(
    ("width", "last"),
    [
        (60, "    4  64.1 → 76.7  74.3 → 81.7  70.5 %   27.5 %    2.0 %"),
        (40, "    4  64.1 → 76.7  74.3 → 81.7  70.5 %"),
        (30, "    4  64.1 → 76.7"),
    ],
)
def test_a_narrow_terminal_gets_a_narrow_table(width: int, last: str) -> None:
    assert last in [row.rstrip() for row in printed(width)]


def test_where_there_is_only_ascii() -> None:
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding="ascii")  # strict: another sign would raise
    print_report(Console(RichConsole(file=file, width=80)), RUN, report(2))
    file.flush()
    rows = written.getvalue().decode().splitlines()
    assert "|     1 | 64.1 -> 76.7 +12.6 |                 - | 70.5 % |  27.5 % |   2.0 % |" in rows
    assert rows[-1].startswith(f"{TOTALS}  -  everything is in ")


def test_a_gain_that_may_be_chance_is_marked_and_numbers_stand_below_numbers() -> None:
    pairs = [(0.641, 0.777), (0.767, 0.771), (0.770, 0.764), (0.95, 1.0)]
    values = report(
        untrained=[score(n, before, None) for n, (before, _) in enumerate(pairs, 1)],
        trained=[score(n, after, None) for n, (_, after) in enumerate(pairs, 1)],
        probe_images={"train": 980, "test": 280},
    )
    file = io.StringIO()
    print_report(Console(RichConsole(file=file, width=80)), RUN, values)
    rows = file.getvalue().splitlines()
    assert [row.split("│")[2] for row in rows if row.startswith("│")] == [
        " 64.1 →  77.7 +13.6 ", " 76.7 →  77.1 ~+0.4 ", " 77.0 →  76.4 ~-0.6 ", " 95.0 → 100.0  +5.0 ",
    ]  # fmt: skip
    assert "~ within two standard errors; one is 0.0 to 2.9 points (280 test images)" in rows
    assert max(map(len, rows[:9])) <= 77
    for widest in (0.0, 1.0):  # numbers of three digits, and all else that makes a column wide, at 80 columns
        for row, (before, after) in enumerate([(1.0, widest), (0.0, 1.0), (0.4, 0.6), (0.2, 0.3)]):
            values["untrained"][row] |= {"trunk": before, "expansion": before}
            values["trained"][row] |= {"trunk": after, "expansion": after}
        values["probe_images"]["test"] = 9
        wide = io.StringIO()
        print_report(Console(RichConsole(file=wide, width=80)), RUN, values)
        table = [row for row in wide.getvalue().splitlines() if row[:1] in "│┃"]
        assert len({len(row) for row in table}) == 1
        assert len(table[0]) <= 80
        assert "…" not in wide.getvalue()
    values["untrained"][1]["trunk"] = values["trained"][1]["trunk"] = 0.5
    values["probe_images"]["test"] = 280_000
    file.seek(0)
    print_report(Console(RichConsole(file=file, width=80)), RUN, values)
    assert "~ within two standard errors; one is 0.0 to 0.1 points (280000 test images)" in file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("before", "after", "images", "chance"),
    [(0.5, 0.5, 100, True), (0.5, 0.63, 100, True), (0.5, 0.65, 100, False), (0.5, 0.37, 100, True),
     (0.5, 0.35, 100, False), (0.0, 1.0, 1, False), (1.0, 1.0, 10, True), (0.5, 0.51, 20_000, False)],
)  # fmt: skip
def test_two_standard_errors_of_the_difference(before: float, after: float, images: int, chance: bool) -> None:
    assert may_be_chance(before, after, images) == chance


def test_a_log_has_whole_sentences() -> None:
    assert f"  restart: {event('restart', 3).text}" in printed(80, terminal=False)


def test_a_quiet_run_says_where_everything_is() -> None:
    assert len(printed(80, Verbosity.QUIET)) == 1


def test_a_run_without_probes_or_speed() -> None:
    file = io.StringIO()
    values = {
        key: value for key, value in report(2, images_per_second=0.0).items() if key not in ("trained", "seconds")
    }
    values["stages"][1]["skipped"] = 3
    print_report(Console(RichConsole(file=file, width=80)), RUN, values)
    rows = file.getvalue().splitlines()
    assert rows[0].strip() == "share of time"
    assert "stage 2 skipped 3 steps: loss or gradient not finite" in rows
    assert rows[-1].startswith("149760 images, too short for a rate  ·  everything is in ")


def test_a_report_without_stages_is_printed() -> None:
    file = io.StringIO()
    print_report(Console(RichConsole(file=file, width=80)), RUN, report(0))
    assert file.getvalue().splitlines()[-1].startswith(f"{TOTALS}  ·  everything is in ")


def test_only_so_many_incidents_are_told() -> None:
    found = incidents([alarm(number, 3, name="starved") for number in range(1, 9)] + [alarm(9, 5)])
    assert found[0] == "9 alarms:"
    assert found[1] == "  alarm: nonfinite of stage 9 at step 5", "what matters most, though it came last"
    assert len(found) == 6
    assert found[-1] == "  and 5 more, see events.jsonl"
    assert incidents([alarm(None, 3, "snapshot"), alarm(1, 3, "cleared"), event("restart", None)]) == []


def test_shares_are_of_the_last_20_steps_that_the_documentation_names() -> None:
    watch = StageClock()
    assert watch.shares() is None
    watch.step_done({"wait_input": 10.0})
    for _ in range(19):
        watch.step_done({"busy": 10.0})
    shares = watch.shares()
    assert shares is not None
    assert (shares.busy, shares.starved, shares.blocked) == (0.95, 0.05, 0.0)
    watch.step_done({"busy": 5.0, "wait_output": 5.0})
    shares = watch.shares()
    assert shares is not None
    assert (shares.busy, shares.starved, shares.blocked) == (0.975, 0.0, 0.025)


def test_the_bar_of_a_stage_is_as_long_as_its_shares_together() -> None:
    bar = time_bar(Shares(0.5, 0.25, 0.125, 0.125), 16)
    assert bar.plain == "█" * 8 + "░" * 4 + "▒" * 2 + "▓" * 2
    assert time_bar(Shares(0.5, 0.25, 0.125, 0.125), 16, plain=True).plain == "########....oo=="
    assert time_bar(Shares(0.7, 0.1, 0.2), 10).plain == "█" * 7 + "░" + "▒" * 2


def drawn(board: Board) -> list[str]:
    file = io.StringIO()
    RichConsole(file=file, width=80, height=24, force_terminal=True, color_system=None).print(board)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("reached", [[1], [1, 2], [2]])
def test_stages_that_a_batch_does_not_reach_keep_their_line(reached: list[int]) -> None:
    board = Board(facts(stages=3), ActiveAlarms())
    assert drawn(board) == [], "nothing before the first step"
    board.step_done(line(4, [stage(number, 4, loss=None) for number in reached]))
    rows = {int(row[1:6]): row.split() for row in drawn(board)[2:]}
    assert set(rows) == {1, 2, 3}
    for number, cells in rows.items():
        assert cells[1] == "-"
        assert ("40" in cells) == (number in reached)


def test_alarms_are_marked_until_they_are_cleared() -> None:
    active = ActiveAlarms()
    board = Board(facts(), active)
    board.step_done(line(4, [stage(1, 4), stage(2, 4)]))
    active.event(alarm(None, 4, name="silent"))
    active.event(alarm(2, 4))
    rows = drawn(board)
    assert [row[0] for row in rows[1:]] == [" ", " ", "!", "!", "!"]
    assert rows[-2:] == ["! run: silent since step 4", "! stage 2: nonfinite since step 4"]
    active.event(alarm(2, 9, "cleared"))
    assert [row[0] for row in drawn(board)[1:]] == [" ", " ", " ", "!"]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["a.yaml", "seed=1"], Verbosity.NORMAL),
        (["-q", "a.yaml", "seed=1"], Verbosity.QUIET),
        (["a.yaml", "seed=1", "--verbose"], Verbosity.VERBOSE),
    ],
)
def test_the_flags_of_a_rank(monkeypatch: pytest.MonkeyPatch, arguments: list[str], asked: Verbosity) -> None:
    monkeypatch.setenv(VARIABLE, "anything else")
    assert take_flags(arguments) == ["a.yaml", "seed=1"]
    assert Verbosity.asked() is asked


def test_a_rank_cannot_be_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "quiet")
    with pytest.raises(UserError, match="--quiet and --verbose"):
        take_flags(["-v", "a.yaml", "-q"])
    assert Verbosity.asked() is Verbosity.QUIET
