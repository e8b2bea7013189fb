"""What a person sees: lines that move on a terminal and leave it clean, plain lines anywhere else."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from launch.processes.fork_client import Forked
from tests.observing.clock import Clock
from tests.observing.made_up import alarm, facts, line, stage
from tests.observing.screens import Screen, on_a_terminal
from tests.runs import LIMIT, session_server
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.terminal import drawing
from workers.observing.terminal import progress as progress_module
from workers.observing.terminal.console import Console
from workers.observing.terminal.progress import Progress
from workers.observing.terminal.verbosity import Verbosity

PLAIN = re.compile(
    r"step +(?P<step>\d+)/(?P<steps>\d+)  epoch (?P<epoch>\d+)/(?P<epochs>\d+)  "
    r"(?:first step done| *(?P<rate>\d+\.\d) images/s)  loss (?P<losses>(?:-|-?\d+\.\d{4})(?: (?:-|-?\d+\.\d{4}))*)"
    r"(?:  probe (?P<probes>(?:-|\d+\.\d)(?: (?:-|\d+\.\d))*) %)?(?:  (?P<left>(?:\d+:)?\d+:\d\d) left)?"
)
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


MADE_UP = "tests.observing.made_up"
"""Shows a run of so many stages and steps."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By which plain lines are a few seconds apart."""
    return Clock(monkeypatch, progress_module)


def told(
    verbosity: Verbosity, steps: int = 3, pause: Callable[[int], object] = lambda step: None, **values: object
) -> list[str]:
    """What is written to a file; `pause` is called before every step."""
    file = io.StringIO()
    with Progress(Console(RichConsole(file=file, width=60), verbosity), ActiveAlarms()) as progress:
        progress.run_started(facts())
        for step in range(steps):
            pause(step)
            progress.step_done(line(step, [stage(number, step, **values) for number in (1, 2)]))
        progress.event(alarm(2, 1))
        progress.event(alarm(None, 2, "snapshot", "snapshot"))
        progress.run_ended("done")
    return file.getvalue().splitlines()


@pytest.mark.processes
def test_a_terminal_has_one_line_a_stage_and_is_left_clean() -> None:
    shown = on_a_terminal(MADE_UP, ("4", "12", "probe"))
    assert shown.code == 0, shown.rows
    assert len(shown.with_text("step 12/585")) == 1, "the last state, once"
    (titles,) = shown.with_text("starved")
    for number in range(1, 5):
        (row,) = [row for row in shown.rows if re.match(rf"[! ] {{4,5}}{number} ", row)]
        cells = row.lstrip("! ").split()
        assert cells[1] == f"{2 + number}.0000"
        assert cells[3:] == ["40", "%", "40", "%", "20", "%", "1/2", "25.0", "%"], row
        assert row.startswith("!") == (number == 2), "the alarm is at its stage"
        bar = cells[2]
        assert bar.count("█") == pytest.approx(0.4 * len(bar), abs=1)
        assert bar.count("▒") == pytest.approx(0.2 * len(bar), abs=1)
    assert titles.split() == ["stage", "loss", "█", "busy", "░", "starved", "▒", "blocked", "queue", "probe"]
    assert shown.rows.count("alarm: nonfinite of stage 2 at step 3") == 1, "and said above"
    assert shown.with_text("the end"), "what comes after is below"
    assert shown.written.count(HIDDEN) == shown.written.count(SHOWN) == 1
    assert not shown.screen.cursor.hidden


@pytest.mark.processes
@pytest.mark.parametrize("columns", [120, 60, 40])
def test_every_line_fits_its_terminal(columns: int) -> None:
    shown = on_a_terminal(MADE_UP, ("4", "6", "probe"), columns)
    numbers = [row for row in shown.rows if re.match(r"[! ] +[1-4] +\d\.\d{4}", row)]
    assert len(numbers) == 4, shown.rows
    assert len(shown.with_text("step 6/585")) == 1
    assert all(len(row) <= columns - 3 for row in numbers), "a `^C` at its end does not wrap, nor tear the lines"


@pytest.mark.processes
def test_sixteen_stages_fit_a_screen_and_a_small_window_shows_what_it_can() -> None:
    shown = on_a_terminal(MADE_UP, ("16", "6"))
    assert len([row for row in shown.rows if re.match(r"[! ] +\d+ +\d", row)]) == 16
    assert not shown.screen.history.top, "nothing has scrolled away"
    small = on_a_terminal(MADE_UP, ("16", "6"), rows=8)
    losses = " ".join(row for row in small.rows if re.match(r"(loss )?\d+\.\d{4}", row) or row.startswith("loss"))
    assert losses.split() == ["loss", *(f"{2 + number}.0000" for number in range(1, 17))], "all of them"
    assert len(small.with_text("step 6/585")) == 1


@pytest.mark.processes
def test_a_terminal_without_colours_or_unicode() -> None:
    shown = on_a_terminal(MADE_UP, ("2", "6"), environment={"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"})
    assert shown.written.isascii()
    assert not re.search(rb"\x1b\[[0-9;]*[34][0-7]m", shown.written), "no colour"
    assert len(shown.with_text("#")) == 3, shown.rows


def test_it_is_redrawn_a_few_times_a_second_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 <= drawing.REFRESH_PER_SECOND <= 10
    monkeypatch.setattr(drawing, "REFRESH_PER_SECOND", 1e-6)  # the next time is a week away
    file = io.StringIO()
    with Progress(Console(RichConsole(file=file, width=80, force_terminal=True)), ActiveAlarms()) as progress:
        progress.run_started(facts())
        for step in range(800):
            progress.step_done(line(step, [stage(1, step)]))
        drawn = file.getvalue().count("starved")
    assert (drawn, file.getvalue().count("starved")) == (1, 2), "by the first step, and at the end"


@pytest.mark.processes
def test_a_terminal_that_becomes_narrower_shows_everything_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def narrower(shown: Screen, process: Forked, resize: Callable[[int], None]) -> None:
        if not asked and len(shown.with_text("starved")) == 1:
            asked.append(60)
            resize(60)
            (tmp_path / "end").touch()

    shown = on_a_terminal(MADE_UP, ("4", "40", f"until={tmp_path / 'end'}"), 100, meanwhile=narrower)
    assert asked
    assert len(shown.with_text("step 40/585")) == 1
    assert len(shown.with_text("starved")) == 1, shown.rows


@pytest.mark.processes
@pytest.mark.parametrize("end", ["raise", "interrupt"])
def test_a_bad_end_leaves_the_terminal_clean(tmp_path: Path, end: str) -> None:
    sent: list[int] = []

    def interrupt(shown: Screen, process: Forked, resize: Callable[[int], None]) -> None:
        # What the main thread itself writes must be over, lest the signal meets it in the middle of a line: that is the
        # alarm, and the lines drawn with it. What is drawn next comes from the thread that draws.
        drawn = shown.written.partition(b"alarm: ")[2].count(b"starved")
        if end == "interrupt" and not sent and drawn > 1:
            sent.append(process.pid)
            os.kill(process.pid, signal.SIGINT)

    how = end if end == "raise" else f"until={tmp_path / 'never'}"
    shown = on_a_terminal(MADE_UP, ("2", "12", how), meanwhile=interrupt)
    assert shown.code == (1 if end == "raise" else -signal.SIGINT)
    assert shown.written.count(HIDDEN) == shown.written.count(SHOWN) == 1
    assert len(shown.with_text("starved")) == 1, "how it stood is still there"
    assert shown.with_text("it ends badly" if end == "raise" else "KeyboardInterrupt")


def test_a_board_that_cannot_be_drawn_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    console = RichConsole(file=io.StringIO(), width=80, force_terminal=True)
    with Progress(Console(console), ActiveAlarms()) as progress:
        progress.run_started(facts())
        progress.step_done(line(0, [stage(1, 0)]))
        progress._board._line = {"step": "damaged"}  # type: ignore[union-attr]
    assert "cannot be drawn" in caplog.text
    assert console.file.getvalue().endswith(SHOWN.decode())  # type: ignore[attr-defined]


@pytest.mark.processes
@pytest.mark.parametrize(
    "environment", [{}, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}, {"TERM": "dumb", "NO_COLOR": "1"}], ids=str
)
def test_a_file_gets_plain_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    with (tmp_path / "said").open("w") as said:
        streams = (said.fileno(),) * 3
        process = session_server().run(MADE_UP, ("4", "6", "probe"), {**os.environ, **environment}, streams)
    assert process.wait(LIMIT) == 0
    written = (tmp_path / "said").read_bytes()
    lines = written.decode().splitlines()
    assert b"\x1b" not in written
    assert b"\r" not in written
    steps = [text for text in lines if PLAIN.fullmatch(text)]
    assert steps[0].startswith("step   1/585")
    assert [text for text in lines if text not in steps] == ["alarm: nonfinite of stage 2 at step 3", "the end"]


@pytest.mark.processes
def test_a_dumb_terminal_gets_plain_lines() -> None:
    shown = on_a_terminal(MADE_UP, ("2", "6"), environment={"TERM": "dumb"})
    assert b"\x1b" not in shown.written
    assert PLAIN.fullmatch(shown.rows[0])


KERNEL = {"JPY_PARENT_PID": "7", "TERM": "xterm-color", "CLICOLOR": "1", "FORCE_COLOR": "1", "PAGER": "cat"}
"""What the kernel of a notebook hands on to the commands in its cells, which get a pseudo-terminal."""


@pytest.mark.processes
@pytest.mark.parametrize(
    "environment",
    [KERNEL, {"TERM": "xterm-color", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}],
    ids=["jupyter", "an editor"],
)
def test_the_cell_of_a_notebook_gets_plain_lines(environment: dict[str, str]) -> None:
    shown = on_a_terminal(MADE_UP, ("2", "6"), environment=environment)
    assert b"\x1b" not in shown.written
    assert PLAIN.fullmatch(shown.rows[0])
    assert "alarm: nonfinite of stage 2 at step 3" in shown.rows


def test_the_longer_a_run_in_a_notebook_takes_the_fewer_lines_it_prints(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "7")
    begins, pauses = clock.now, [0.0, 4.9, 5.1, 1000.0, 1049.0, 1060.0, 1e5, 1e5 + 299, 1e5 + 301]

    def pause(step: int) -> None:
        clock.now = begins + pauses[step]

    said = [text for text in told(Verbosity.NORMAL, len(pauses), pause) if PLAIN.fullmatch(text)]
    assert [text[:12] for text in said] == [f"step   {step}/585" for step in (1, 3, 4, 6, 7, 9)]


def test_a_plain_line_can_be_parsed() -> None:
    first, second, third, said = told(Verbosity.VERBOSE, online={"knn": 0.125})[:4]
    found = PLAIN.fullmatch(first)
    assert found
    assert (found["step"], found["rate"], found["left"]) == ("1", None, None)
    found = PLAIN.fullmatch(third)
    assert found, "never broken, however long"
    assert (found["step"], found["steps"], found["epoch"], found["epochs"]) == ("3", "585", "1", "15")
    assert (found["rate"], found["losses"], found["probes"]) == ("676.2", "3.0000 4.0000", "12.5 12.5")
    assert found["left"] == "3:36"
    assert second.startswith("step   2/585")
    assert said == "alarm: nonfinite of stage 2 at step 1"


def test_plain_lines_are_a_few_seconds_apart(clock: Clock) -> None:
    begins, pauses = clock.now, [0.0, 4.9, 5.1, 9.9, 10.2, 20.0]

    def pause(step: int) -> None:
        clock.now = begins + pauses[step]

    said = [text for text in told(Verbosity.NORMAL, len(pauses), pause) if PLAIN.fullmatch(text)]
    assert [text[:12] for text in said] == [f"step   {step}/585" for step in (1, 3, 5, 6)]


def test_how_much_is_said() -> None:
    alone = "alarm: nonfinite of stage 2 at step 1"
    assert told(Verbosity.QUIET) == [alone]
    assert [text[:12] for text in told(Verbosity.NORMAL)] == ["step   1/585", alone[:12]]
    verbose = told(Verbosity.VERBOSE)
    assert [text[:12] for text in verbose[:3]] == ["step   1/585", "step   2/585", "step   3/585"]
    assert verbose[3:] == [alone, "snapshot of stage None at step 2"]


def test_a_stage_without_a_loss_has_a_dash() -> None:
    (found,) = [PLAIN.fullmatch(text) for text in told(Verbosity.NORMAL, steps=1, loss=None)[:1]]
    assert found
    assert found["losses"] == "- -"
