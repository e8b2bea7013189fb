"""Traces of real runs: complete, with the pipeline in them, and the trained bits are those of a run without one."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.observing.traces import arrows, problems, process_names, read, slices
from tests.recovery import Trial, disturbed, fault, faults, undisturbed
from tests.runs import LIMIT, wait_for_snapshot
from workers.observing.trace import FLUSH_SECONDS

pytestmark = pytest.mark.processes

STEPS = range(12)
ONLINE = ("evaluation.online.linear=true", "evaluation.online.quality_every=4")


def trace_of(trial: Trial, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{trial.run / 'trace.json'}: open it at https://ui.perfetto.dev" in done.stdout
    document = read(trial.run / "trace.json")
    assert problems(document) == []
    return document


def test_a_stage_that_was_killed_is_in_the_trace_before_and_after(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        # It is killed when what it did until step 5 has been written, and the snapshot that it comes back from.
        struck = faults(fault("slow", 2, 5, seconds=1.1 * FLUSH_SECONDS), trial.pause(2, 6), fault("kill", 2, 6))
        process = trial.start("trace=true", "restart=stage", struck, *ONLINE)
        wait_for_snapshot(tmp_path, 4, process)
        trial.go()
        out, error = process.communicate(timeout=LIMIT)
        document = trace_of(trial, subprocess.CompletedProcess(process.args, process.returncode, out, error))
        assert trial.digest == undisturbed()
        names = process_names(document)
        assert list(names.values()) == ["coordinator", "stage 1", "stage 2", "stage 3", "stage 4"]
        assert len(list((trial.run / "trace").glob("stage_2.*"))) == 2
        told = {
            name: Counter(e["name"] for e in slices(document) if names[e["pid"]] == name) for name in names.values()
        }
        assert told["coordinator"] == {"make batch": 12, "wait for images": 12, "send": 12}
        steps = {"receive", "forward", "view 1", "view 2", "update", "head", "loss", "backward", "optimizer", "probe"}
        for name in ("stage 1", "stage 3", "stage 4"):
            assert {told[name][what] for what in steps} == {12}, name
            assert told[name]["snapshot"] == 3
            assert min(told[name][part] for part in ("wait for input", "copy")) >= 12
            assert told[name]["send"] == (0 if name == "stage 4" else 12)
        second = [e["args"]["step"] for e in slices(document, "forward") if names[e["pid"]] == "stage 2"]
        assert set(second) == set(STEPS)
        assert second.count(4) == second.count(5) == 2, "it went on from the snapshot after 4 steps"
        handed = {(sender, receiver, step) for sender, _, receiver, _, step in arrows(document) if sender != receiver}
        lost = {("stage 2", "stage 3", 6)}  # by the process that was killed: stage 3 had the batch, and got no other
        assert {(f"stage {k}", f"stage {k + 1}", step) for k in (1, 2, 3) for step in STEPS} - handed <= lost
        assert {("coordinator", "stage 1", step) for step in STEPS} <= handed


def test_a_serial_run_has_a_row_a_stage(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        document = trace_of(trial, trial.train("trace=true", "runtime=serial", *ONLINE))
        assert trial.digest == undisturbed()
        assert list(process_names(document).values()) == ["serial run"]
        feed = Counter(e["name"] for e in slices(document))
        assert feed["make batch"] == feed["wait for images"] == 12
        rows = {e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
        told = Counter((rows[e["tid"]], e["name"]) for e in slices(document))
        names = ("forward", "update", "loss", "probe")
        assert {told[f"stage {stage}", name] for stage in (1, 2, 3, 4) for name in names} == {12}
        assert {told[f"stage {stage}", "snapshot"] for stage in (1, 2, 3, 4)} == {3}
        assert len(arrows(document)) == 12


@pytest.mark.slow
def test_replicas_have_rows_of_their_own_and_hand_over_to_each_other(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        document = trace_of(trial, trial.train("trace=true", "stages.2.replicas=2", "data.batch_size=64"))
        replicas = ["stage 2 replica 1", "stage 2 replica 2"]
        assert list(process_names(document).values()) == ["coordinator", "stage 1", *replicas, "stage 3", "stage 4"]
        handed = Counter((sender, receiver) for sender, _, receiver, _, _ in arrows(document) if sender != receiver)
        assert all(handed["stage 1", name] == handed[name, "stage 3"] == 12 for name in replicas)


def test_a_run_that_failed_has_a_trace_of_what_it_did_within_its_bound(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        settings = "trace={enabled: true, max_events: 40, from_step: 2}"
        process = trial.start(settings, faults(fault("raise", 3, 8)))
        out, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 1, error
        assert "stage 3 failed at step 8" in error
        assert "the trace lacks later events (" in out
        document = read(trial.run / "trace.json")
        assert problems(document) == []
        assert min(e["args"]["step"] for e in slices(document)) == 2
        kept = Counter(e["pid"] for e in document["traceEvents"] if e["ph"] in ("X", "C"))
        assert max(kept.values()) == 40
        left_out = document["otherData"]["left_out"]
        assert left_out["stage 1"] > 0


def test_of_a_run_that_was_killed_at_once_there_is_all_but_its_last_second(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        struck = faults(fault("slow", 1, 8, seconds=1.1 * FLUSH_SECONDS), fault("kill", 4, 10))
        process = trial.start("trace=true", "runtime=serial", struck)
        out, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 1, error
        assert f"{trial.run / 'trace.json'}: open it at" in out
        document = read(trial.run / "trace.json")
        assert problems(document) == []
        assert {e["args"]["step"] for e in slices(document, "forward")} >= set(range(8))
