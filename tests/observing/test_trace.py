"""What a process records of itself: everything, as much as it may, and nothing when nobody asked."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.config.observing import TraceConfig
from pipeline.errors import UserError
from pipeline.serial import build_stages, serial_step
from tests.observing.clock import Clock
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, same, small_config, state
from workers.observing import trace as trace_module
from workers.observing import trace_part
from workers.observing.trace import (
    FLUSH_EVENTS,
    NO_TRACE,
    PartTracer,
    trace_of_coordinator,
    trace_of_member,
    trace_of_serial,
)
from workers.observing.trace_part import Count, PartHeader, Slice, part_paths, read_part
from workers.run.files import RunDir
from workers.topology.processes import TrainingProcess

MEMBER = TrainingProcess(2, 1, (2, 3), replica=2, replicas=4)


def tracer(folder: Path, **settings: int) -> PartTracer:
    return PartTracer(
        TraceConfig(enabled=True, **settings), RunDir(folder), PartHeader.of_this_process("stage 1", 0, (1,))
    )


def test_nothing_is_made_when_nobody_asked(tmp_path: Path) -> None:
    run, off = RunDir(tmp_path), TraceConfig()
    assert trace_of_member(off, run, MEMBER) is NO_TRACE
    assert trace_of_coordinator(off, run) is NO_TRACE
    assert trace_of_serial(off, run, 4) is NO_TRACE
    with NO_TRACE.span("stage 1", "update"):
        NO_TRACE.at(3)
        NO_TRACE.took("stage 1", "forward", 0.0)
    NO_TRACE.close()
    assert list(tmp_path.iterdir()) == []


def test_a_part_says_who_wrote_it_and_by_which_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, trace_part)
    monkeypatch.setattr(clock, "time_ns", lambda: 1_700_000_000 * 10**9)
    trace_of_member(TraceConfig(enabled=True), RunDir(tmp_path), MEMBER).close()
    (path,) = part_paths(tmp_path / "trace")
    assert path.name == "stages_2-3.1.jsonl"
    head = read_part(path).header
    assert (head.name, head.unit, head.stages, head.replica, head.replicas) == ("stages 2-3", 1, (2, 3), 2, 4)
    assert (head.began, head.began + head.offset) == (1000 * 10**9, 1_700_000_000 * 10**9)
    assert head.clock


def test_slices_counts_and_steps_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, trace = Clock(monkeypatch, trace_module), tracer(tmp_path)
    trace.at(7)
    began = clock.now
    clock.now += 0.125
    with trace.span("stage 1", "update"):
        clock.now += 0.25
        with trace.span("stage 1", "loss"):
            clock.now += 0.5
    trace.took("stage 1", "forward", began)
    trace.count("stage 1", "queue", 2)
    trace.close()
    trace.close()
    part = read_part(*part_paths(tmp_path / "trace"))
    first, ms = 1000 * 10**9, 10**6
    assert part.slices == [
        Slice("stage 1", "forward", first, 875 * ms, 7), Slice("stage 1", "update", first + 125 * ms, 750 * ms, 7),
        Slice("stage 1", "loss", first + 375 * ms, 500 * ms, 7),
    ]  # fmt: skip
    assert [(c.name, c.value) for c in part.counts] == [("queue", 2)]
    assert (part.left_out, part.notes) == (0, [])


def test_nothing_waits_for_long_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, trace, written = Clock(monkeypatch, trace_module), tracer(tmp_path), []
    for seconds in (0.0, 0.9, 0.2, 0.3):
        clock.now += seconds
        trace.took("stage 1", "forward", clock.now)
        written.append(len(read_part(*part_paths(tmp_path / "trace")).slices))
    trace.close()
    assert written == [0, 0, 3, 3], "a second after what was written last"


def test_what_is_too_much_is_counted_and_not_kept(tmp_path: Path) -> None:
    trace = tracer(tmp_path, max_events=5)
    for step in range(8):
        trace.at(step)
        trace.took("stage 1", "forward", time.monotonic())
    (path,) = part_paths(tmp_path / "trace")
    assert read_part(path).left_out == 1, "a process that is killed now has not said that it left something out"
    trace.close()
    part = read_part(path)
    assert [each.step for each in part.slices] == [0, 1, 2, 3, 4]
    assert part.left_out == 3


def test_steps_before_the_first_are_not_recorded_and_take_no_room(tmp_path: Path) -> None:
    trace = tracer(tmp_path, max_events=2, from_step=3)
    trace.took("stage 1", "receive", time.monotonic())
    for step in range(5):
        trace.at(step)
        trace.took("stage 1", "forward", time.monotonic())
    trace.close()
    trace = tracer(tmp_path, from_step=3)
    for step in (2, 3):
        trace.took("batches", "make batch", time.monotonic(), step)
    trace.close()
    steps, ahead = (read_part(path) for path in part_paths(tmp_path / "trace"))
    assert ([each.step for each in steps.slices], steps.left_out) == ([3, 4], 0)
    assert [each.step for each in ahead.slices] == [3], "told by another thread, of another step"


def test_a_restarted_process_continues_beside_what_was_written(tmp_path: Path) -> None:
    for step in range(3):
        trace = tracer(tmp_path)
        trace.at(step)
        trace.took("stage 1", "forward", time.monotonic())
        trace.close()
    paths = part_paths(tmp_path / "trace")
    assert [path.name for path in paths] == [f"stage_1.{number}.jsonl" for number in (1, 2, 3)]
    assert [read_part(path).slices[0].step for path in paths] == [0, 1, 2]


def test_parts_of_a_process_that_was_started_often_stay_in_order(tmp_path: Path) -> None:
    for _ in range(11):
        tracer(tmp_path).close()
    numbers = [path.name.split(".")[1] for path in part_paths(tmp_path / "trace")]
    assert numbers == [str(number) for number in range(1, 12)]


def test_a_time_that_is_none_is_no_part_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**PartHeader.of_this_process("stage 1", 0, (1,)).to_json(), "offset": 10**30}) + "\n")
    with pytest.raises(ValueError, match="a time is no time"):
        read_part(path)


@pytest.mark.processes
def test_a_killed_process_loses_what_it_did_last_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if not child:
        try:
            monkeypatch.setattr("workers.observing.trace.FLUSH_SECONDS", float("inf"))
            trace = tracer(tmp_path)
            for step in range(FLUSH_EVENTS + 5):
                trace.at(step)
                trace.took("stage 1", "forward", time.monotonic())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    part = read_part(*part_paths(tmp_path / "trace"))
    assert [each.step for each in part.slices] == list(range(FLUSH_EVENTS))


def test_half_a_line_and_damaged_lines_are_left_out_with_a_note(tmp_path: Path) -> None:
    head = PartHeader.of_this_process("stage 1", 0, (1,))
    good = json.dumps(["X", "stage 1", "forward", 5, 6, 7])
    bad = ['["X", "stage 1", 3, 5, 6, 7]', "[" * 900, '["X", "s", "f", 1, -1, 0]', '["C", "s", "q", 1, NaN]', "\xff"]
    bad += [f'["X", "s", "f", {10**40}, 1, 0]', '["X", "s", "f", -5, 1, 0]', f'["C", "s", "q", {10**40}, 1]']
    path = tmp_path / "stage_1.1.jsonl"
    path.write_text("\n".join([json.dumps(head.to_json()), good, *bad, good, good[:-4]]), encoding="latin-1")
    part = read_part(path)
    assert part.slices == [Slice("stage 1", "forward", 5, 6, 7)] * 2
    assert part.notes == [
        "'stage_1.1.jsonl' ends within a line, which is left out: its process was killed",
        "8 lines of 'stage_1.1.jsonl' are damaged and left out",
    ]


@pytest.mark.parametrize("first", ["", "{}", "[1]", '{"format": "onward-trace-1"}', "[" * 4000])
def test_what_is_no_part_of_a_trace_is_refused(tmp_path: Path, first: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(first + "\n")
    with pytest.raises(ValueError, match=r"'x\.jsonl' is no part of a trace"):
        read_part(path)


def test_a_disk_that_is_full_ends_the_trace_and_not_the_run(tmp_path: Path) -> None:
    trace = tracer(tmp_path)

    class Full:
        name, closed = "part", False

        def writelines(self, lines: list[str]) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            self.closed = True

    trace._file.close()
    trace._file = Full()  # type: ignore[assignment]
    for _ in range(2 * FLUSH_EVENTS + 1):
        trace.count("stage 1", "queue", 1)
    trace.close()
    assert trace._file.closed


def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("in the way")
    with pytest.raises(UserError, match=r"trace' cannot be written .*trace=false"):
        tracer(tmp_path)


def test_a_stage_that_is_watched_trains_to_the_same_bits_and_tells_its_parts(tmp_path: Path) -> None:
    config = small_config()
    trained = []
    for watched in (False, True):
        stages = build_stages(config, STEPS_PER_EPOCH)
        trace = tracer(tmp_path)
        for stage in stages if watched else ():
            trace.watch(stage)
        for step in range(3):
            trace.at(step)
            list(serial_step(stages, batch_of(config, step), step, [0.0] * 4))
        trace.close()
        trained.append([state(stage) for stage in stages])
    assert all(same(first, second) for first, second in zip(*trained, strict=True))
    unwatched, watched_part = (read_part(path) for path in part_paths(tmp_path / "trace"))
    assert unwatched.slices == []
    parts = ["forward", "view 1", "view 2", "update", "head", "loss", "backward", "optimizer"]
    expected = [(f"stage {stage}", what, step) for step in range(3) for stage in (1, 2, 3, 4) for what in parts]
    assert [(s.track, s.name, s.step) for s in watched_part.slices] == expected


def test_counts_are_no_slices(tmp_path: Path) -> None:
    trace = tracer(tmp_path)
    trace.count("stage 1", "queue", 0)
    trace.close()
    part = read_part(*part_paths(tmp_path / "trace"))
    assert part.slices == []
    assert isinstance(part.counts[0], Count)
