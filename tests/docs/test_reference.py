"""The reference that is written from the code says what the code says, and leaves nothing out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.site import configuration, presets, run_directory, surroundings
from docs.site.generate import FOLDER, PAGES
from tests.documents import PRESETS
from tests.runs import train
from tests.test_surroundings import variables_read
from workers.observing.observer import ALARMS


def test_every_page_is_as_the_code_writes_it() -> None:
    stale = [name for name, page in PAGES.items() if (FOLDER / name).read_text() != page()]
    assert not stale, "run: python -m docs.site.generate"


def test_every_key_has_a_docstring() -> None:
    missing = sorted({f"{model.__name__}.{key}" for model, key, said in configuration.all_keys() if not said})
    assert not missing, f"a docstring below each says what it is, with its unit: {missing}"


def test_every_key_stands_in_its_page() -> None:
    page = configuration.page()
    shown = set(re.findall(r"^\| `([\w.]+)`", page, re.M)) | set(re.findall(r"^#+ ([\w.]+)", page, re.M))
    there = {re.sub(r"(?<=[.])[NK]\.", "", key) for key in shown}
    assert {key for _, key, _ in configuration.all_keys()} <= there


def test_every_preset_has_its_parts() -> None:
    lacking = {path.name: {"Command", "Time", "Expect"} - presets.read_header(path)[1].keys() for path in PRESETS}
    assert {name: parts for name, parts in lacking.items() if parts} == {}


def test_every_variable_that_is_read_is_in_the_table() -> None:
    told = {name for names in surroundings.VARIABLES for name in names.split(", ")}
    assert set(variables_read()) - told == set()


def test_every_alarm_is_in_the_table() -> None:
    assert set(surroundings.ALARMS) == set(ALARMS)


@pytest.mark.processes
def test_the_fields_that_a_run_writes_are_in_the_tables(tmp_path: Path) -> None:
    given = ["runtime=serial", "snapshots.every=2", "train.max_steps=4", "evaluation.linear_probe=true"]
    result = train(tmp_path, *given, "evaluation.online={linear: true}")
    assert result.returncode == 0, result.stderr
    run, page = tmp_path / "run", run_directory.page()
    told = set(re.findall(r"`([\w.]+)`", page))
    documents = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    documents += [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    documents += [json.loads((run / name).read_text()) for name in ("report.json", "coordinator.json")]
    stages = [stage for document in documents for stage in document.get("stages", []) if isinstance(stage, dict)]
    documents += [*stages, documents[-2]["feed"]]
    manifest = json.loads(next(run.glob("snapshots/*/manifest.json")).read_text())
    documents += [manifest, *manifest["stages"].values()]
    assert {name for document in documents if isinstance(document, dict) for name in document} - told == set()
    files = {path.name for path in run.iterdir()}
    named = {part.strip("/").split("/")[0] for part in re.findall(r"^\| `([^`]+)`", page, re.M)}
    assert {name for name in files if name not in named and not name.startswith(".")} == set()
