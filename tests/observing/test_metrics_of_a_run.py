"""What a real run exports and writes down, with everything on, a stage that is killed and one that pauses.

And the same training with everything off: not a bit of the weights is another.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.runs import LIMIT, report, start, train
from workers.observing.catalogue import CATALOGUE
from workers.observing.history_file import read_events, read_steps

pytestmark = pytest.mark.timeout(3 * LIMIT)
ON = (
    "snapshots.every=2", "restart=stage", "metrics.norms_every=1", "alarms={silent_seconds: 3.0, window_steps: 2}",
    "evaluation.online={linear: true, knn_bank: 128, quality_every: 1, quality_samples: 64}", "trace=true",
    "faults=[{kind: kill, stage: 2, step: 3}, {kind: slow, stage: 3, step: 6, seconds: 8.0}]",
)  # fmt: skip
OFF = ("runtime=serial", "metrics={enabled: false, norms_every: 0}", "alarms.enabled=false")
STEPS = "train.max_steps=9"


@dataclass
class Observed:
    """A run, and all that its endpoint has shown."""

    folder: Path
    out: str
    pages: list[str]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    folder = tmp_path_factory.mktemp("observed")
    process, pages, url = start(folder, STEPS, *ON), [], ""
    deadline = time.monotonic() + LIMIT
    while process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        try:
            url = url or json.loads((folder / "run" / "coordinator.json").read_text())["metrics"]
            with urllib.request.urlopen(url, timeout=5) as answer:
                pages.append(answer.read().decode())
        except (OSError, HTTPException):  # not there yet, or not any more
            continue
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return Observed(folder, out, pages)


def test_every_metric_of_the_catalogue_and_no_other(observed: Observed) -> None:
    found: dict[str, set[str]] = {}
    for page in observed.pages:
        for family in text_string_to_metric_families(page):
            name = family.name + "_total" * (family.type == "counter")
            for sample in family.samples:
                found.setdefault(name, set()).update(sample.labels)
    assert found.keys() == {metric.name for metric in CATALOGUE}
    for metric in CATALOGUE:
        assert found[metric.name] - {"le"} == set(metric.labels), metric.name


def test_what_happened_is_counted(observed: Observed) -> None:
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(observed.pages[-1]):
        for sample in family.samples:
            key = sample.labels.get("stage") or sample.labels.get("alarm") or ""
            values[sample.name, key] = sample.value
    assert values["onward_run_steps", ""] == 9
    assert values["onward_restarts_total", "2"] == 1
    assert values["onward_restarts_total", "3"] == 0
    assert values["onward_alarms_total", "silent"] >= 1
    assert values["onward_process_memory_bytes", "1"] > 2**26
    assert values["onward_gradient_norm", "4"] > 0
    assert values["onward_update_norm", "4"] > 0


def test_what_happened_is_written_down(observed: Observed) -> None:
    run = observed.folder / "run"
    lines, notes = read_steps(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(9))
    assert notes == []
    for line in lines:
        assert line["images"] == 64
        for stage in line["stages"]:
            assert stage["gradient_norm"] > 0
            assert stage["update_norm"] >= 0
            assert stage["memory_bytes"] > 2**26
            assert stage["cuda_bytes"] is None
    assert all(stage["snapshot_seconds"] > 0 for stage in lines[-1]["stages"])
    events, notes = read_events(run / "events.jsonl")
    assert notes == []
    (restart,) = [event for event in events if event.kind == "restart"]
    complete = [event.step or 0 for event in events[: events.index(restart)] if event.kind == "snapshot"]
    assert (restart.stage, restart.step) == (2, max(complete, default=0)), "2, if the disk was quick enough"
    assert "SIGKILL" in restart.text
    assert {event.step for event in events if event.kind == "snapshot"} == {2, 4, 6, 8}
    silence, *_ = [event for event in events if (event.kind, event.name, event.stage) == ("alarm", "silent", 3)]
    assert silence.text.startswith("stage 3 has reported nothing for ")
    for event in (restart, silence):
        assert event.text in observed.out


def test_no_bit_of_the_weights_is_another(observed: Observed, tmp_path: Path) -> None:
    off = train(tmp_path, STEPS, *OFF)
    assert off.returncode == 0, off.stderr
    assert report(tmp_path)["final_digest"] == report(observed.folder)["final_digest"]
    assert not (tmp_path / "run" / "events.jsonl").exists()


@pytest.mark.slow
def test_prometheus_has_nothing_to_say_against_them(observed: Observed) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is missing: apt-get install --no-install-recommends prometheus"
    found = subprocess.run(
        [promtool, "check", "metrics"], input=observed.pages[-1], capture_output=True, text=True, timeout=30
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_loss_that_is_not_finite_is_told_before_the_run_gives_up(tmp_path: Path) -> None:
    done = train(tmp_path, "runtime=serial", "optimizer={lr: 1.0e+30, warmup_epochs: 0}", "train.max_skipped=2")
    assert done.returncode == 1, done.stderr
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    alarm = next(event for event in events if event.kind == "alarm")
    assert alarm.name == "nonfinite"
    assert "the loss is not finite" in alarm.text
    assert alarm.text in done.stdout
