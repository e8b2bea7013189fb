"""Trackers of real runs: TensorBoard's files say what `metrics.jsonl` says, and no bit of the training is another."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from tests.marks import slow
from tests.recovery import killed, undisturbed
from tests.runs import ROOT, report, train
from workers.observing.trackers.base import flatten

pytestmark = pytest.mark.processes

STEPS = ("train.max_steps=12", "snapshots.every=4", "metrics.enabled=false")
OWN = """
    import json, sys
    from workers.observing.trackers import Tracker

    class ToFile(Tracker):
        def __init__(self, path):
            self.path = path
        def start(self, facts):
            self.run = facts.path
            self.put(start=facts.start_step, stages=facts.stages, seed=facts.config["seed"])
        def log(self, step, numbers):
            self.put(step=step, loss=numbers["stage_2/loss"])
        def end(self, outcome):
            self.put(end=outcome, failure_is_written=(self.run / "failure.json").exists())
        def put(self, **values):
            with open(self.path, "a") as file:
                print(json.dumps(values), file=file)

    class Breaks(ToFile):
        def log(self, step, numbers):
            raise KeyError("loss")

    class Refuses(ToFile):
        def start(self, facts):
            sys.exit("no account")
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """The environment in which a module of trackers is found."""
    (tmp_path / "run_trackers.py").write_text(textwrap.dedent(OWN))
    return {"PYTHONPATH": f"{ROOT}:{tmp_path}"}


def trackers(folder: Path, *kinds: str) -> str:
    """An override with these; those of the module above write to a file of their name."""
    own = [f"{{kind: 'run_trackers:{kind}', options: {{path: {folder / kind}}}}}" for kind in kinds]
    return f"trackers=[tensorboard, {', '.join(own)}]" if own else "trackers=[tensorboard]"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def agrees(folder: Path) -> None:
    """TensorBoard's own reader finds every number of `metrics.jsonl`, once, at its step, and no other."""
    written = EventAccumulator(str(folder / "run" / "tensorboard"), {SCALARS: 0})
    written.Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in lines(folder / "run" / "metrics.jsonl"):
        for name, value in flatten(line).items():
            expected.setdefault(name, []).append((line["step"], value))
    # What was written after the snapshot that the run goes on from is dropped, and leaves a name without numbers.
    assert {name for name in written.Tags()["scalars"] if written.Scalars(name)} == set(expected)
    for name, points in expected.items():
        found = written.Scalars(name)
        assert [point.step for point in found] == [step for step, _ in points], name
        assert [point.value for point in found] == pytest.approx([value for _, value in points], rel=1e-6), name


def test_a_run_that_dies_and_goes_on(tmp_path: Path, own: dict[str, str]) -> None:
    given = trackers(tmp_path, "ToFile", "Breaks")
    killed(tmp_path, (2, 6), *STEPS, given, snapshot=4, environment=own)
    first = lines(tmp_path / "ToFile")
    assert first[0] == {"start": 0, "stages": 4, "seed": 1}
    assert first[-1]["end"].startswith("failed: stage 2")
    assert first[-1]["failure_is_written"], "before the trackers end, which may take long"
    result = train(tmp_path, *STEPS, given, environment=own)
    assert result.returncode == 0, result.stderr
    second = lines(tmp_path / "ToFile")[len(first) :]
    assert second[0]["start"] == 4, "the first step after the snapshot"
    assert [line["step"] for line in second[1:-1]] == list(range(4, 12))
    assert second[-1] == {"end": "done", "failure_is_written": False}
    stages = [line["stages"][1]["loss"] for line in lines(tmp_path / "run" / "metrics.jsonl")[4:]]
    assert [line["loss"] for line in second[1:-1]] == stages
    agrees(tmp_path)
    assert report(tmp_path)["final_digest"] == undisturbed()
    text = "tracker 'run_trackers:Breaks' failed at step 4 (KeyError: 'loss') and is not called again"
    assert result.stdout.count(text) == 1 + 1, "when it happens, and in the summary"
    events = [event for event in lines(tmp_path / "run" / "events.jsonl") if event["name"] == "tracker"]
    assert text in [event["text"] for event in events]
    assert "Traceback" in (tmp_path / "run" / "logs" / "coordinator.log").read_text()


def test_a_serial_run(tmp_path: Path, own: dict[str, str]) -> None:
    result = train(tmp_path, *STEPS, "runtime=serial", trackers(tmp_path, "Breaks", "ToFile"), environment=own)
    assert result.returncode == 0, result.stderr
    agrees(tmp_path)
    assert lines(tmp_path / "ToFile")[-1]["end"] == "done"
    assert report(tmp_path)["final_digest"] == undisturbed()


@pytest.mark.parametrize("runtime", [slow("pipelined"), "serial"])
def test_one_that_cannot_start_is_bad_input(tmp_path: Path, own: dict[str, str], runtime: str) -> None:
    result = train(tmp_path, *STEPS, f"runtime={runtime}", trackers(tmp_path, "ToFile", "Refuses"), environment=own)
    assert result.returncode == 2, result.stderr
    assert result.stderr == (
        "error: trackers.2.kind: 'run_trackers:Refuses' could not start (SystemExit: no account). "
        "Correct it, or leave it out\n"
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not lines(tmp_path / "run" / "metrics.jsonl")
    assert lines(tmp_path / "ToFile")[-1]["end"].startswith("failed: trackers.2.kind")
