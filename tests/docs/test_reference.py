"""The reference that is written from the code says what the code says, and leaves nothing out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


FREE = ("terms", "online", "counters", "seconds", "shares")
"""Records whose names are not ours to list."""


@pytest.mark.processes
def test_the_fields_that_a_run_writes_are_in_the_tables(tmp_path: Path) -> None:
    given = ["runtime=serial", "snapshots.every=2", "train.max_steps=4", "evaluation.linear_probe=true"]
    result = train(tmp_path, *given, "evaluation.online={linear: true}")
    assert result.returncode == 0, result.stderr
    untold, unnamed = untold_of(tmp_path / "run")
    assert untold == set()
    assert unnamed == set()


def untold_of(run: Path) -> tuple[set[str], set[str]]:
    """Fields, and files, that a run has written and that the page does not name."""
    page = run_directory.page()
    lines = [line for name in ("metrics.jsonl", "events.jsonl") for line in (run / name).read_text().splitlines()]
    texts = [(run / name).read_text() for name in ("report.json", "coordinator.json")]
    manifests = [path.read_text() for path in run.glob("snapshots/*/manifest.json")]
    fields = {name for text in [*lines, *texts, *manifests] for name in fields_of(json.loads(text))}
    files = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    named = {part.strip("/").split("/")[0] for part in re.findall(r"^\| `([^`]+)`", page, re.M)}
    return fields - set(re.findall(r"`([\w.]+)`", page)), files - named


def fields_of(value: Any) -> Iterator[str]:
    """Names of all fields, also of records within records; not the names of terms, parts and stages."""
    if isinstance(value, list):
        for item in value:
            yield from fields_of(item)
    elif isinstance(value, dict):
        named = {name: inner for name, inner in value.items() if not name.isdigit()}
        yield from named
        yield from (name for key, inner in value.items() if key not in FREE for name in fields_of(inner))
