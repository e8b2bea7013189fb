"""Prometheus itself, on the configuration, the rules and every question of the dashboard, while a real run trains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from tests.deploy.parts import DASHBOARDS, PROMETHEUS, dashboard, of_panels, of_rules, rules
from tests.deploy.pictures import named, picture
from tests.deploy.promql import fill, parse, selectors
from tests.deploy.server import Server, prometheus, tool
from tests.runs import Process, ended_afterwards, start, wait_for_file
from tests.waiting import LIMIT, wait_until
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.metrics import RunMetrics

BATCH = 64
"""Images a step, in tests/runs.py."""
ANSWER_SECONDS = 400.0
"""For a run to have shown everything that it can show; it takes a fraction of that where the cores are idle."""
EVERYTHING = (
    "train.epochs=1000",
    "train.max_steps=100000",
    "evaluation.online={linear: true, knn_bank: 256, quality_every: 5}",
    "snapshots.every=20",
    "metrics.norms_every=5",
    "alarms.collapse_below=1.0e-6",  # how long it trains, and so what becomes of its features, is up to the machine
    "data.workers=1",
)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_rules_find_a_rule_that_is_wrong(tmp_path: Path) -> None:
    right, wrong = (f"run:onward_feed_wait:share1m > {limit}" for limit in (0.5, 0.9))
    (tmp_path / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text().replace(right, wrong))
    (tmp_path / "rules_test.yml").write_text((PROMETHEUS / "rules_test.yml").read_text())
    command = [tool("promtool"), "test", "rules", "rules_test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    assert "DataStarvation" in done.stdout + done.stderr


def test_promtool_finds_the_metrics_well_named() -> None:
    served = generate_latest(RunMetrics(ActiveAlarms()).registry).decode()
    command = [tool("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=served, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    badly_named = served.replace("onward_samples_total", "onward_samples")
    assert subprocess.run(command, input=badly_named, capture_output=True, text=True, timeout=LIMIT).returncode == 3


@contextmanager
def announced(root: Path, file: Path) -> Iterator[None]:
    """The command that tells Prometheus of the runs in `root`."""
    announcing = Process(["targets", str(root), str(file), "--every", "0.5"], forked=True)
    try:
        yield
    finally:
        announcing.kill()
        announcing.wait(timeout=LIMIT)


@contextmanager
def stopped_afterwards(process: Process) -> Iterator[Process]:
    """A run, which is asked to stop at the end of the block."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=LIMIT)
        except AssertionError:
            process.kill()
            process.communicate(timeout=LIMIT)


ON_A_GPU = ("onward_mfu", "onward_device_peak_flops", "onward_device_throttled")
"""Series that a run on the CPU does not have."""
EMPTY_ON_A_CPU = {"Utilisation (MFU)", "GPU slowed down"}
OF_ALERTS = "ALERTS"
"""In the name of series that are there only while an alert fires."""


def questions(values: dict[str, str]) -> dict[str, str]:
    """Every expression of dashboard and rules by where it stands; of alerts the series that they look at."""
    asked = {query.where: fill(query.text, values) for query in of_panels()}
    for rule in of_rules():
        if rule.where in rules("record"):
            asked[rule.where] = rule.text
        else:
            texts = (re.sub(r" offset \w+", "", node.prettify()) for node in selectors(parse(rule.text)))
            asked |= {f"{rule.where} {number}": text for number, text in enumerate(texts)}
    return asked


def has_numbers(asked: Callable[[str], list[dict[str, Any]]], expression: str) -> bool:
    """Whether there is a series, and it has a value that is a number."""
    return any(isfinite(float(series["value"][1])) for series in asked(expression))


def check_choices(server: Server, values: dict[str, str]) -> None:
    """The variables of the dashboard offer what there is."""
    offered = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked, variable["query"]
            found = server.query(f"group by ({asked[2]}) ({fill(asked[1], values)})")
            offered[variable["name"]] = sorted(series["metric"][asked[2]] for series in found)
    assert offered == {"run": ["run"], "instance": [values["$instance"]], "stage": ["1", "2", "3", "4"]}


def check_rules(server: Server) -> None:
    """Every rule was evaluated without an error, and no alert fires for a run in which all is well."""
    for group in server.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
    firing = [alert["labels"] for alert in server.get("alerts")["alerts"] if alert["state"] == "firing"]
    assert not [labels for labels in firing if labels["severity"] == "critical"]


def check_values(server: Server, folder: Path) -> None:
    """What Prometheus has read is what the run has written."""
    (samples,) = server.query("onward_samples_total")
    images = float(samples["value"][1])
    steps = len((folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert images % BATCH == 0
    assert 0 < images <= BATCH * steps
    for series in server.query("stage:onward_busy:share1m"):
        assert 0 < float(series["value"][1]) <= 1


@pytest.mark.processes
@pytest.mark.timeout(ANSWER_SECONDS + 3 * LIMIT)
def test_every_question_has_an_answer_while_a_run_trains(tmp_path: Path) -> None:
    runs = announced(tmp_path, tmp_path / "targets" / "runs.json")
    with prometheus(tmp_path) as server, runs, stopped_afterwards(start(tmp_path, *EVERYTHING)) as process:

        def found(expression: str) -> list[dict[str, Any]]:
            assert process.poll() is None, process.communicate(timeout=LIMIT)
            return server.query(expression)

        seen = wait_until(lambda: found("onward_run_info"), "the run", ANSWER_SECONDS)
        values = {"$instance": seen[0]["metric"]["instance"], "$stage": "1|2|3|4", "$run": "run"}
        for where, text in questions(values).items():
            if OF_ALERTS in text:
                found(text)
            elif any(name in text for name in ON_A_GPU):
                assert found(text) == [], "a question that is understood, and has no answer here"
            else:
                wait_until(
                    partial(has_numbers, found, text), f"an answer to {where}: {text}", ANSWER_SECONDS, pause=0.5
                )
        check_choices(server, values)
        check_rules(server)
        check_values(server, tmp_path)
    assert process.returncode == 130, "the run was stopped, it did not fail"


def begin(root: Path, name: str) -> Process:
    """A run, or what is left of it, to its end; a stage that dies comes back."""
    return start(root, *EVERYTHING, "restart=stage", f"run_dir={root / 'runs' / name}")


def check_lines(server: Server, values: dict[str, str], since: float) -> None:
    """Whatever a dashboard asks of all that time, no two of its lines have the same name."""
    for query in of_panels():
        lines = server.query_range(fill(query.text, values), since, time.time(), 1.0)
        names = [named(line, query.names[0]) or str(line["metric"]) for line in lines]
        assert len(names) == len(set(names)), query.where


@pytest.mark.processes
@pytest.mark.timeout(ANSWER_SECONDS + 6 * LIMIT)
def test_a_run_counts_once_whatever_becomes_of_its_processes_and_beside_another(tmp_path: Path) -> None:
    values, since = {"$instance": ".*", "$stage": ".*", "$run": "struck"}, time.time()
    struck_folder = tmp_path / "runs" / "struck"
    struck_folder.mkdir(parents=True)
    targets = announced(tmp_path / "runs", tmp_path / "targets" / "runs.json")
    with prometheus(tmp_path) as server, targets, stopped_afterwards(begin(tmp_path, "beside")) as beside:
        with ended_afterwards([begin(tmp_path, "struck")]) as (struck,):
            wait_for_file(tmp_path, struck_folder / "snapshots" / "step_20" / "manifest.json", struck)
            log = (struck_folder / "logs" / "stage_3.log").read_text()
            os.kill(int(re.findall(r"process (\d+)", log)[-1]), signal.SIGKILL)
            wait_until(lambda: has_numbers(server.query, 'onward_restarts_total{run="struck"} > 0'), "a restart")
        wait_until(lambda: not server.query('onward_run_steps{run="struck"}'), "its end")
        with stopped_afterwards(begin(tmp_path, "struck")) as struck:
            for query in of_panels():
                if OF_ALERTS not in query.text and not any(name in query.text for name in ON_A_GPU):
                    text = fill(query.text, values)
                    wait_until(partial(has_numbers, server.query, text), query.where, ANSWER_SECONDS, pause=0.5)
            check_lines(server, values, since)
            (count,) = (query.text for query in of_panels("onward-runs") if query.where == "onward-runs: Runs A")
            (runs,) = server.query_range(count, since, time.time(), 1.0)
            assert max(float(value) for _, value in runs["values"]) == 2
            for dashboard_name in DASHBOARDS:
                _, empty = picture(server, dashboard_name, values, time.time(), minutes=(time.time() - since) / 60)
                assert {title for title in empty if not title.startswith("Alerts")} <= EMPTY_ON_A_CPU
    assert (struck.returncode, beside.returncode) == (130, 130), "they were stopped, they did not fail"
