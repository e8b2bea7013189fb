"""What a real run exports and writes down, with everything on, a stage that is killed and one that pauses.

And the same training with everything off: not a bit of the weights is another.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.observing.recorders import read_steps
from tests.recovery import fault, faults, pause
from tests.runs import LIMIT, report, start, time_lost, train, wait_for_steps
from tests.waiting import wait_until
from workers.observing.catalogue import BUCKETS, CATALOGUE, series
from workers.observing.history_file import read_events

pytestmark = pytest.mark.timeout(3 * LIMIT)
ON = (
    "snapshots.every=2", "restart=stage", "metrics.norms_every=1", "alarms={silent_seconds: 1.0, window_steps: 2}",
    "evaluation.online={linear: true, knn_bank: 128, quality_every: 1, quality_samples: 64}", "trace=true",
)  # fmt: skip
OFF = ("runtime=serial", "metrics={enabled: false, norms_every: 0}", "alarms.enabled=false")
STEPS = "train.max_steps=9"
WRITTEN = {("onward_snapshot_seconds_count", str(stage)) for stage in (1, 2, 3, 4)}


@dataclass
class Observed:
    """A run, and what its endpoint has shown once everything had happened."""

    folder: Path
    out: str
    page: str


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    folder = tmp_path_factory.mktemp("observed")
    silence = pause(folder / "go", 3, 6)
    process = start(folder, STEPS, *ON, faults(fault("kill", 2, 3), silence))
    wait_for_steps(folder, 6, process)
    url, page = json.loads((folder / "run" / "coordinator.json").read_text())["metrics"], ""

    def all_has_happened() -> bool:
        nonlocal page
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            page = answer.read().decode()
        alarms = [(event.name, event.stage) for event in read_events(folder / "run" / "events.jsonl")[0]]
        found = values(page)
        return ("silent", 3) in alarms and found["onward_alarms_total", "silent"] > 0 and found.keys() >= WRITTEN

    wait_until(all_has_happened, lambda: f"a snapshot of every stage and the silence of one in {page}", LIMIT)
    (folder / "go").touch()
    out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return Observed(folder, out, page)


def values(page: str) -> dict[tuple[str, str], float]:
    """By name, and by stage or alarm."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {(s.name, s.labels.get("stage") or s.labels.get("alarm") or ""): s.value for s in samples}


@pytest.mark.processes
def test_every_metric_of_the_catalogue_and_no_other(observed: Observed) -> None:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(observed.page):
        name = family.name + "_total" * (family.type == "counter")
        for sample in family.samples:
            found.setdefault(name, set()).update(sample.labels)
    on_a_gpu = {"onward_device_peak_flops", "onward_device_throttled"}
    assert found.keys() == {metric.name for metric in CATALOGUE} - on_a_gpu
    for metric in CATALOGUE:
        if metric.name in on_a_gpu:
            continue
        assert found[metric.name] - {"le"} == set(metric.labels), metric.name


@pytest.mark.processes
def test_there_are_as_many_series_as_the_catalogue_counts(observed: Observed) -> None:
    """Beside those of `quickstart` it has a histogram of snapshots, two probes and five measures of each stage."""
    samples = [sample for family in text_string_to_metric_families(observed.page) for sample in family.samples]
    assert len(samples) == series(4, most=False) + 4 * (len(BUCKETS) + 3 + 2 + 5)


@pytest.mark.processes
def test_what_happened_is_counted(observed: Observed) -> None:
    found = values(observed.page)
    assert found["onward_run_steps", ""] == 9
    assert found["onward_restarts_total", "2"] == 1
    assert found["onward_restarts_total", "3"] == 0
    assert found["onward_alarms_total", "silent"] >= 1
    assert found["onward_process_memory_bytes", "1"] > 2**26
    assert found["onward_gradient_norm", "4"] > 0
    assert found["onward_update_norm", "4"] > 0
    assert 0 < found["onward_goodput_seconds_total", ""] < found["onward_run_seconds_total", ""]
    assert time_lost(observed.folder) >= {"start", "restart"}


@pytest.mark.processes
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
            assert stage.get("cuda_bytes") is None
    assert all(stage["snapshot_seconds"] > 0 for stage in lines[-1]["stages"])
    for found in report(observed.folder)["stages"]:
        own = sum(line["stages"][found["stage"] - 1]["added"].get("busy", 0) for line in lines)
        if found["stage"] != 2:  # which did some of its steps twice
            assert found["busy_seconds"] == pytest.approx(own, abs=1e-4), "a line rounds"
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


@pytest.mark.processes
def test_no_bit_of_the_weights_is_another(observed: Observed, tmp_path: Path) -> None:
    off = train(tmp_path, STEPS, *OFF)
    assert off.returncode == 0, off.stderr
    assert report(tmp_path)["final_digest"] == report(observed.folder)["final_digest"]
    assert not (tmp_path / "run" / "events.jsonl").exists()


@pytest.mark.processes
@pytest.mark.slow
def test_prometheus_has_nothing_to_say_against_them(observed: Observed) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is missing: apt-get install --no-install-recommends prometheus"
    found = subprocess.run(
        [promtool, "check", "metrics"], input=observed.page, capture_output=True, text=True, timeout=LIMIT
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.processes
def test_a_loss_that_is_not_finite_is_told_before_the_run_gives_up(tmp_path: Path) -> None:
    done = train(tmp_path, "runtime=serial", "optimizer={lr: 1.0e+30, warmup_epochs: 0}", "train.max_skipped=2")
    assert done.returncode == 1, done.stderr
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    alarm = next(event for event in events if event.kind == "alarm")
    assert alarm.name == "nonfinite"
    assert "the loss is not finite" in alarm.text
    assert alarm.text in done.stdout
