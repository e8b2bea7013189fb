"""The reference that is written from the code says what the code says, and leaves nothing out."""

from __future__ import annotations

import re

from docs.site import configuration, presets, run_directory, surroundings
from docs.site.generate import FOLDER, PAGES
from tests.documents import PRESETS, blocks
from tests.sources import REPOSITORY, text_of
from tests.test_surroundings import variables_read
from workers.observing.observer import ALARMS
from workers.run.files import RunDir


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


def test_every_path_of_a_run_is_in_the_table() -> None:
    paths = {name for name, member in vars(RunDir).items() if isinstance(member, property)} - {"folders"}
    assert set(f"{run_directory.WRITTEN} {run_directory.HIDDEN}".split()) == paths


def test_the_first_page_and_the_page_about_python_show_the_same_lines() -> None:
    first, page = (text_of(REPOSITORY / name) for name in ("README.md", "docs/start/python.md"))
    shown = next(block.text for block in blocks(first) if block.language == "python")
    assert shown == next(block.text for block in blocks(page) if block.language == "python")
