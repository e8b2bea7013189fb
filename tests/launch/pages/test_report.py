"""`onward report`: one page with everything in it, whatever state the run is in, and figures for papers."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from launch.commands.report import write_report
from launch.pages.page import page
from launch.pages.run_record import read_run
from tests.conftest import Outcome
from tests.launch.commands.evaluations import full
from tests.launch.pages.reported import BEGAN, Page, event, finish, line, write_run
from workers.run.files import RunDir

pytestmark = pytest.mark.long

FIGURES = ("pipeline", "throughput", "loss", "online", "time", "busy", "queues", "norms", "learning-rate", "memory")
HEADINGS = ("Pipeline", "Stages", "Measurements", "Linear probe", "Evaluation", "Events and alarms", "What was run")
OUTSIDE = re.compile(r"(?i)(src|href)\s*=\s*[\"']?(https?:)?//|url\(\s*[\"']?(?!#)|@import|<(script|iframe|object)")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str]:
    """A run with everything in it, and its report."""
    run = write_run(tmp_path_factory.mktemp("run") / "four-stages")
    finish(run)
    write_report(run.path)
    return run, (run.path / "report.html").read_text(encoding="utf-8")


def page_of(run: RunDir) -> str:
    """Without figures, which take a second each."""
    return page(read_run(run.path), [])


def test_everything_is_on_the_page(ended: tuple[RunDir, str]) -> None:
    run, html = ended
    found = Page(html)
    for heading in HEADINGS:
        assert heading in found.words, heading
    assert [attrs["id"] for tag, attrs in found.elements if tag == "svg"] == list(FIGURES)
    for said in (
        "four-stages", "done", "555.5", "60", "ab" * 32, "stage 3 has collapsed", "1 / 1 alarms / restarts", "seed",
        "stem to layer1.1", "computing", "515 MiB", "backbone: resnet18", str(run.path),
    ):  # fmt: skip
        assert said in found.text, said
    assert "+10.0" in found.text, "what training gained, in percent"
    assert "fashion_mnist_10k: top-1 accuracy, %" in found.text, "a table of onward evaluate"


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_nothing(ended: tuple[RunDir, str]) -> None:
    _, html = ended
    found = Page(html)
    assert OUTSIDE.findall(html) == []
    assert html.count("<style") == 1, "what a figure says of style would hold for the page"
    assert not {"script", "iframe", "object", "img", "form"} & found.tags
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]


def test_every_colour_of_a_figure_is_one_of_the_page(ended: tuple[RunDir, str]) -> None:
    _, html = ended
    figures = re.findall(r'<svg class="figure".*?</svg>', html, re.DOTALL)
    assert len(figures) == len(FIGURES)
    for figure in figures:
        colours = set(re.findall(r"(?:fill|stroke|color): ([^;\"]+)", figure))
        assert {colour for colour in colours if not colour.startswith("var(--")} <= {"none"}
        used = set(re.findall(r"var\(--([a-z0-9-]+)\)", figure))
        counts = {name: html.count(f"--{name}:") for name in used}
        assert set(counts.values()) == {2}, f"each is defined for white and for dark: {counts}"
        if not re.search(r'id="(throughput|time)"', figure):
            assert {f"stage-{stage}" for stage in (1, 2, 3, 4)} <= used


def test_names_within_two_figures_do_not_meet(ended: tuple[RunDir, str]) -> None:
    _, html = ended
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', html)) <= set(ids)


def test_the_figures_are_there_for_papers(ended: tuple[RunDir, str]) -> None:
    run, _ = ended
    files = {path.name for path in (run.path / "report").iterdir()}
    assert files == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    for name in FIGURES:
        with Image.open(run.path / "report" / f"{name}.png") as image:
            assert image.width >= 1000
            assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert "<text" not in (run.path / "report" / f"{name}.svg").read_text(), "letters are drawn, fonts differ"


def test_the_pipeline_shows_the_middle_of_the_run(ended: tuple[RunDir, str]) -> None:
    _, html = ended
    figure = re.search(r'<svg class="figure" id="pipeline".*?</svg>', html, re.DOTALL)
    assert figure is not None
    assert "the batch of step 10 through the pipeline" in figure[0]
    texts = re.findall(r">([^<>]+)</text>", figure[0])
    assert {"feed", "stage 1", "stage 4", "10", "11", "time, ms"} <= set(texts)
    assert not {"1", "2", "3", "19"} & set(texts), "steps of its beginning and of its end"


def test_a_loss_that_is_not_finite_is_said_everywhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=9)
    lines = [json.loads(each) for each in run.metrics.read_text().splitlines()]
    for each in lines[6:]:
        each["stages"][3]["loss"] = float("nan")
    run.metrics.write_text("".join(json.dumps(each) + "\n" for each in lines))
    html = page_of(run)
    assert html.count("not finite</b>") == 2, "in the tile and in the table, where the last finite one stood"
    assert "the loss of stage 4 was not finite in 3 of its steps, first at step 6, also at last" in Page(html).text


def test_a_pause_between_two_attempts_is_not_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=9)
    lines = [json.loads(each) for each in run.metrics.read_text().splitlines()]
    for each in lines[6:]:
        each["time"] += 86_400
    run.metrics.write_text("".join(json.dumps(each) + "\n" for each in lines))
    goes_on = {**event("restart", "the run goes on after 6 steps", step=6), "time": lines[6]["time"] - 1.0}
    run.events.write_text(json.dumps(goes_on) + "\n")
    assert "4.5 s from the first step to the last, without pauses" in Page(page_of(run)).text


@pytest.mark.usefixtures("page_alone")
def test_whatever_a_run_is_called_is_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>$x^2$ & \"q'"
    tracker = "trackers=[{kind: 'mine:B', options: {'<script>alert(4)</script>': secret}}]"
    terms = ("</svg><script>alert(2)</script>", "$\\frac{1}{0$", "a" * 500)
    run = write_run(tmp_path / hostile, tracker, steps=3, terms=terms)
    evaluated = json.dumps(full(corruptions=False).to_json()).replace("fashion_mnist_10k", "<script>alert(5)</script>")
    (run.path / "evaluation.json").write_text(evaluated)
    run.events.write_text(json.dumps(event("note", "</td><script>alert(3)</script>\u202e{{ 7 * 7 }}")) + "\n")
    run.failure.write_text(json.dumps({"kind": "raised", "message": "<b onclick=x>boom</b>", "who": "s", "step": 1}))
    write_report(run.path)
    html = (run.path / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    assert not {"script", "img"} & found.tags
    assert OUTSIDE.findall(html) == []
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert hostile in found.text
    assert "</td><script>alert(3)</script>?{{ 7 * 7 }}" in found.text
    assert "<b onclick=x>boom</b>" in found.text
    assert "<script>alert(5)</script>: top-1 accuracy, %" in found.text
    assert "<script>alert(4)</script>: (not shown)" in found.text
    assert "&lt;/svg&gt;" in html, "the title of a panel"


def test_a_last_line_that_is_cut_short_is_left_out_with_a_note(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=5)
    with run.metrics.open("a") as file:
        file.write(json.dumps(line(5))[:200])
    record = read_run(run.path)
    assert "cut short" in record.notes[0]
    text = Page(page_of(run)).text
    assert record.notes[0] in text
    assert "5 steps, to epoch 1 of 15" in text


def test_without_a_trace_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    assert "This run was not traced. Train with trace=true" in Page(page_of(write_run(tmp_path / "run", steps=2))).text


def test_a_damaged_trace_is_said_and_the_report_is_made(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3)
    run.trace.mkdir()
    (run.trace / "stage_1.1.jsonl").write_bytes(b"\x00\xff" * 50)
    (note,) = read_run(run.path).notes
    assert note.startswith("the trace lacks a part: 'stage_1.1.jsonl' is no part of a trace")
    assert note in Page(page_of(run)).text


def test_the_trace_of_a_run_that_was_killed_is_merged(ended: tuple[RunDir, str]) -> None:
    assert ended[0].merged_trace.is_file()


@pytest.mark.parametrize(
    ("failure", "pill", "said"),
    [
        ({"kind": "interrupted", "message": "interrupted; go on"}, "interrupted", "interrupted; go on"),
        ({"kind": "raised", "message": "stage 3 failed at step 2"}, "failed", "stage 3 failed at step 2"),
        (None, "stopped", "It ended without a message"),
    ],
)
def test_how_a_run_ended(tmp_path: Path, failure: dict[str, Any] | None, pill: str, said: str) -> None:
    run = write_run(tmp_path / "run", steps=2)
    if failure:
        run.failure.write_text(json.dumps(failure))
    found = Page(page_of(run))
    assert [attrs["class"] for _, attrs in found.elements if "pill" in (attrs.get("class") or "")] == [f"pill {pill}"]
    assert said in found.text


def test_a_run_that_is_running_is_reported_as_far_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2)
    with run.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "It is still running" in Page(page_of(run)).text


def test_damaged_files_beside_the_metrics_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2)
    for path in (run.report, run.events, run.path / "evaluation.json"):
        path.write_text("[1,\n2\n")
    text = Page(page_of(run)).text
    for name in ("report.json", "events.jsonl", "evaluation.json"):
        assert name in text


@pytest.mark.usefixtures("page_alone")
def test_a_long_run_makes_no_large_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2500, terms=("one", "two", "three"))
    write_report(run.path)
    html = (run.path / "report.html").read_text(encoding="utf-8")
    assert len(html) < 1_000_000
    assert "2,500" in Page(html).text


@pytest.mark.usefixtures("page_alone")
def test_values_of_any_kind_are_no_crash(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3)
    odd = {
        "loss": "x",
        "terms": [1],
        "online": {"linear": {}},
        "busy": None,
        "queue_depth": True,
        "memory_bytes": 10**400,
    }
    bad = {"step": 3, "time": BEGAN, "images": "many", "stages": [{"stage": 9, **odd}, {"stage": 0}]}
    with run.metrics.open("a") as file:
        file.write(json.dumps(bad) + "\n")
    write_report(run.path)
    assert "stage 9" in Page((run.path / "report.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: run.config.unlink(), "is not a run directory"),
        (lambda run: run.metrics.unlink(), "has no metrics.jsonl, so there is nothing to report"),
        (lambda run: run.metrics.write_text(""), "has no step yet"),
        (lambda run: run.metrics.write_text('{"step": 0\n{}\n'), "line 1"),
        (lambda run: (run.path / "report").write_text(""), "cannot be written"),
    ],
)
@pytest.mark.usefixtures("one_figure")
def test_what_cannot_be_reported(
    tmp_path: Path, onward: Callable[..., Outcome], spoil: Callable[[RunDir], object], said: str
) -> None:
    run = write_run(tmp_path / "run", steps=2)
    spoil(run)
    outcome = onward("report", run.path)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_no_such_run(tmp_path: Path, onward: Callable[..., Outcome]) -> None:
    outcome = onward("report", tmp_path / "nowhere")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "does not exist" in outcome.err


@pytest.mark.usefixtures("one_figure")
def test_the_page_goes_where_it_is_told_to(tmp_path: Path, onward: Callable[..., Outcome]) -> None:
    run = write_run(tmp_path / "run", steps=2)
    target = tmp_path / "pages" / "mine.html"
    outcome = onward("report", run.path, "--to", target)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"report in {target}" in outcome.out
    assert Page(target.read_text()).text
    assert not list(run.path.glob("report*")), "whose run it is may not be whose report it is"
    assert "in the folder <code>mine</code>" in target.read_text()
    assert (tmp_path / "pages" / "mine" / "loss.png").is_file()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (".", "is a folder. Give a file, such as"),
        ("run/metrics.jsonl", "is no name of a page. Give one that ends in .html"),
    ],
)
def test_what_is_no_page_is_not_replaced_by_one(
    tmp_path: Path, onward: Callable[..., Outcome], target: str, said: str
) -> None:
    run = write_run(tmp_path / "run", steps=2)
    before = run.metrics.read_bytes()
    outcome = onward("report", run.path, "--to", tmp_path / target)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err
    assert run.metrics.read_bytes() == before
