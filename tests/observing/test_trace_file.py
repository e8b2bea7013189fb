"""One trace of many parts: in order, nested, with both ends of every arrow, whatever became of the processes."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.observing.traces import (
    MS,
    arrows,
    feed_events,
    header,
    problems,
    process_names,
    read,
    slices,
    stage_events,
    write_part,
    write_pipeline,
)
from workers.observing import trace_file
from workers.observing.trace_file import is_merged, merge_trace
from workers.observing.trace_part import Slice
from workers.run.files import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "trace").mkdir()
    return RunDir(tmp_path)


def test_a_pipeline_as_one_trace(run: RunDir) -> None:
    write_pipeline(run.trace)
    (note,) = merge_trace(run)
    document = read(run.merged_trace)
    assert problems(document) == []
    assert list(process_names(document).values()) == ["coordinator", "stage 1", "stage 2", "stage 3"]
    assert len(slices(document)) == 8 * (1 + 6 + 6 + 5)
    assert note.startswith(f"trace of {8 * 21:,} events in {run.merged_trace}: open it at https://ui.perfetto.dev")
    assert document["otherData"] == {
        "began": document["otherData"]["began"], "clocks": "one clock, exact", "left_out": {},
    }  # fmt: skip
    counters = {(e["name"], e["args"]["batches"]) for e in document["traceEvents"] if e["ph"] == "C"}
    assert counters == {(f"queue, stage {stage}", count) for stage in (1, 2, 3) for count in (0, 1, 2)}
    first = slices(document, "forward")[0]
    assert (first["ts"], first["dur"], first["args"]) == (30_000, 20_000, {"step": 0})


def test_the_arrows_follow_every_batch_to_the_last_stage(run: RunDir) -> None:
    write_pipeline(run.trace, steps=2)
    merge_trace(run)
    assert arrows(read(run.merged_trace)) == {
        (*ends, step)
        for step in (0, 1)
        for ends in (
            ("coordinator", "send", "stage 1", "forward"),
            ("stage 1", "forward", "stage 1", "send"),
            ("stage 1", "send", "stage 2", "forward"),
            ("stage 2", "forward", "stage 2", "send"),
            ("stage 2", "send", "stage 3", "forward"),
        )
    }


def test_replicas_hand_over_to_those_who_hold_the_same_rows(run: RunDir) -> None:
    write_part(run.trace, header("coordinator", -1), feed_events(range(1)))
    for replica in (1, 2):
        head = header(f"stage 1 replica {replica}", 0, [1], replica, replicas=2)
        write_part(run.trace, head, stage_events(1, range(1)))
    for replica in (1, 2, 3, 4):
        head = header(f"stage 2 replica {replica}", 1, [2], replica, replicas=4)
        write_part(run.trace, head, [e for e in stage_events(2, range(1)) if e[1] != "send"])
    merge_trace(run)
    document = read(run.merged_trace)
    assert problems(document) == []
    handed = {(sender[-1], receiver[-1]) for sender, _, receiver, _, _ in arrows(document) if "stage 2" in receiver}
    assert handed == {("1", "1"), ("1", "2"), ("2", "3"), ("2", "4")}
    assert len([a for a in arrows(document) if a[0] == "coordinator"]) == 2


def test_stages_of_one_process_hand_over_within_it(run: RunDir) -> None:
    both = [e for stage in (1, 2) for e in stage_events(stage, range(1)) if e[1] != "send" and e[1] != "receive"]
    write_part(run.trace, header("serial run", 0, [1, 2]), [Slice("feed", "wait for images", 0, MS, 0), *both])
    merge_trace(run)
    document = read(run.merged_trace)
    assert problems(document) == []
    assert arrows(document) == {("serial run", "forward", "serial run", "forward", 0)}
    names = {e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert [names[tid] for tid in sorted(names)] == ["feed", "stage 1", "stage 2"]


def test_a_restarted_stage_goes_on_in_its_own_row_and_gets_its_batches_again(run: RunDir) -> None:
    write_part(run.trace, header("coordinator", -1), feed_events(range(4)))
    write_part(run.trace, header("stage 1", 0, [1]), stage_events(1, range(3)), tail='["X","stage 1","forw')
    again = stage_events(1, range(2, 4), first=1000)
    write_part(run.trace, header("stage 1", 0, [1], began=1100 * MS), again)
    write_part(run.trace, header("stage 2", 1, [2]), [e for e in stage_events(2, range(3)) if e[1] != "send"])
    notes = merge_trace(run)
    assert notes[0] == "'stage_1.1.jsonl' ends within a line, which is left out: its process was killed"
    document = read(run.merged_trace)
    assert problems(document) == []
    assert len({e["pid"] for e in slices(document) if process_names(document)[e["pid"]] == "stage 1"}) == 1
    begins = [e["ts"] for e in document["traceEvents"] if e["name"] == "process begins" and e["pid"] == 2]
    assert begins == [0, 1_100_000]
    received = [e for e in document["traceEvents"] if e["ph"] == "f" and e["pid"] == 2 and e["args"]["step"] == 2]
    assert len([e for e in received if e["ts"] in (230_000, 1_230_000)]) == 2, "the batch of step 2 came twice"


def test_the_time_of_day_joins_hosts_and_setting_it_shifts_nothing_within_one(run: RunDir) -> None:
    day = 1_700_000_000_000 * MS
    write_part(run.trace, header("coordinator", -1), feed_events(range(2)))
    write_part(run.trace, header("stage 1", 0, [1], offset=day - 3600_000 * MS, began=5), stage_events(1, range(2)))
    far = [e._replace(start=e.start + 77 * MS) for e in stage_events(2, range(2)) if isinstance(e, Slice)]
    write_part(run.trace, header("stage 2", 1, [2], clock="there", offset=day - 77 * MS, began=77 * MS), far)
    merge_trace(run)
    document = read(run.merged_trace)
    assert problems(document) == []
    starts = {process_names(document)[e["pid"]]: e["ts"] for e in reversed(slices(document, "forward"))}
    assert starts == {"stage 1": 30_000, "stage 2": 60_000}
    assert document["otherData"]["clocks"].startswith("2 clocks, joined by the time of day")


def test_no_arrow_goes_back_in_time_where_clocks_disagree(run: RunDir) -> None:
    write_part(run.trace, header("stage 1", 0, [1]), stage_events(1, range(2)))
    late = header("stage 2", 1, [2], clock="there", offset=1_700_000_000_000 * MS - 500 * MS)
    write_part(run.trace, late, stage_events(2, range(2)))
    merge_trace(run)
    document = read(run.merged_trace)
    assert problems(document) == []
    assert {ends[0] for ends in arrows(document) if ends[2] == "stage 2"} == {"stage 2"}


def test_what_was_left_out_is_said_with_what_to_do(run: RunDir) -> None:
    write_part(run.trace, header("stage 1", 0, [1]), stage_events(1, range(1)), tail='{"left_out": 1234}\n')
    _, note = merge_trace(run)
    assert "(1,234 of stage 1)" in note
    assert "trace.max_events" in note
    assert "trace.from_step" in note
    assert read(run.merged_trace)["otherData"]["left_out"] == {"stage 1": 1234}


def test_a_large_trace_is_compressed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pipeline(run.trace)
    merge_trace(run)
    small = read(run.merged_trace)
    monkeypatch.setattr(trace_file, "LARGE_BYTES", 1000)
    merge_trace(run)
    assert not run.merged_trace.exists()
    with gzip.open(run.path / "trace.json.gz", "rt", encoding="utf-8") as file:
        assert json.load(file)["traceEvents"] == small["traceEvents"]


def test_a_trace_is_merged_until_a_process_writes_again(run: RunDir) -> None:
    assert not is_merged(run)
    write_pipeline(run.trace)
    assert not is_merged(run)
    merge_trace(run)
    assert is_merged(run)
    later = run.merged_trace.stat().st_mtime_ns + 1_000_000
    os.utime(next(run.trace.glob("stage_2*")), ns=(later, later))
    assert not is_merged(run)


def test_nothing_recorded_nothing_said(tmp_path: Path) -> None:
    assert merge_trace(RunDir(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_told_and_the_others_are_merged(run: RunDir) -> None:
    write_pipeline(run.trace)
    next(run.trace.glob("stage_2*")).write_bytes(b"\x00" * 100)
    notes = merge_trace(run)
    assert notes[0].startswith("the trace lacks a part: 'stage_2.1.jsonl' is no part of a trace")
    assert list(process_names(read(run.merged_trace)).values()) == ["coordinator", "stage 1", "stage 3"]


def test_a_full_disk_is_told_and_leaves_nothing_half(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pipeline(run.trace)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.merged_trace))

    monkeypatch.setattr(trace_file, "trace_events", full)
    (note,) = merge_trace(run)
    assert note == f"no trace: '{run.merged_trace}' cannot be written (No space left on device)"
    assert [path.name for path in run.path.iterdir()] == ["trace"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda events: events.append({**slices({"traceEvents": events})[0], "dur": 105_000}),
            "neither within nor after",
        ),
        (lambda events: events.remove(next(e for e in events if e["ph"] == "f")), "not two ends"),
        (lambda events: events.remove(next(e for e in events if e["name"] == "process_name")), "without a name"),
        (lambda events: events.append({**next(e for e in events if e["ph"] == "C"), "args": {"x": -1}}), "less than"),
    ],
)
def test_the_check_itself(run: RunDir, spoil: Callable[[list[dict[str, Any]]], None], told: str) -> None:
    write_pipeline(run.trace)
    merge_trace(run)
    document = read(run.merged_trace)
    spoil(document["traceEvents"])
    document["traceEvents"].sort(key=lambda e: (e.get("ts", -1), -e.get("dur", 0)))
    assert any(told in problem for problem in problems(document))
