"""The history of a run stays small, and says what the steps said: means, differences of totals, what is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.observing.clock import Clock
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.amounts import MissingAmounts
from workers.observing.downsampler import MAX_COLUMNS
from workers.observing.history_file import WHOLE_BYTES, sampled_steps
from workers.observing.live import History
from workers.observing.live import document as document_module
from workers.observing.live import history as history_module
from workers.observing.observer import Event, RunFacts


def facts(path: Path, start_step: int = 0, stages: int = 2) -> RunFacts:
    return RunFacts(
        name="digits",
        path=path,
        config={"seed": 0, "link": {"depth": 2}},
        stages=stages,
        total_steps=1000,
        steps_per_epoch=10,
        start_step=start_step,
        started=50.0,
    )


def stage(index: int, step: int, **others: Any) -> dict[str, Any]:
    totals = {
        "busy": 0.3 * (step + 1),
        "wait_input": 0.1 * (step + 1),
        "wait_output": 0.0,
        "link_bytes": 500 * (step + 1),
    }
    fixed = {
        "stage": index,
        "step": step,
        "loss": 1.0,
        "terms": {},
        "learning_rate": 0.1,
        "skipped": 0,
        "queue_depth": 1,
    }
    return {**fixed, **totals, "online": {}, **others}


def line(step: int, *stages: dict[str, Any], **others: Any) -> dict[str, Any]:
    pace = {"images_per_second": 64.0, "eta_seconds": 9.0, "feed_wait_seconds": 0.0}
    head = {"step": step, "epoch": step // 10, "time": 100.0 + 2 * step, "images": 64, **pace, **others}
    return {**head, "stages": list(stages) or [stage(1, step), stage(2, step)]}


class Told(History):
    """As the recorder and the observers of a run would tell it: with `added` in each line, and after `ActiveAlarms`."""

    def __init__(self, **others: Any) -> None:
        self._active = ActiveAlarms()
        super().__init__(self._active, **others)
        self._missing = MissingAmounts()

    def step_done(self, line: Mapping[str, Any]) -> None:
        super().step_done(self._missing.fill(dict(line)))

    def event(self, event: Event) -> None:
        self._active.event(event)
        super().event(event)


def document(history: History) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(history.whole().text)
    return value


def started(path: Path, **others: Any) -> History:
    history = Told(**others)
    history.run_started(facts(path))
    return history


def event(kind: Any, name: str = "starved", stage: int | None = None, at: float = 100.0) -> Event:
    return Event(time=at, kind=kind, name=name, stage=stage, step=3, text=f"{name} {at}")


def test_a_loss_that_invents_terms_does_not_fill_the_memory(tmp_path: Path) -> None:
    history = started(tmp_path, max_rows=8)
    for step in range(300):
        terms = {f"term_{step}_{number}": 1.0 for number in range(20)}
        history.step_done(line(step, stage(1, step, terms=terms)))
    assert sum(len(columns) for columns in document(history)["columns"].values()) == MAX_COLUMNS


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    history = started(tmp_path)
    broken = {"loss": None, "gradient_norm": None, "online": {"rankme": None}, "terms": {"a": float("nan"), "b": True}}
    history.step_done(line(0, stage(1, 0, **broken), eta_seconds=None, images_per_second=0.0))
    history.step_done(line(1, stage(1, 1, loss=2.0, gradient_norm=float("inf"))))
    columns = document(history)["columns"]["1"]
    assert columns["loss"] == [None, 2.0]
    assert not {"gradient_norm", "online:rankme", "term:a", "term:b"} & columns.keys()
    pace = document(history)["columns"]["0"]["images_per_second"]
    assert pace == [None, 64.0], "a single step has no pace"


def test_totals_become_what_a_step_added_and_begin_anew_after_a_restart(tmp_path: Path) -> None:
    history = started(tmp_path)
    for step, (busy, sent) in enumerate([(1.0, 100), (1.5, 200), (0.25, 40), (0.5, 80)]):
        history.step_done(line(step, stage(1, step, busy=busy, link_bytes=sent, wait_input=0.0)))
    columns = document(history)["columns"]
    assert columns["1"]["busy"] == [1.0, 0.5, 0.25, 0.25]
    assert columns["1"]["link_bytes"] == [100, 100, 40, 40]
    assert columns["0"]["step_seconds"] == [None, 2.0, None, 2.0], "the time until it was back is not that of a step"


def test_now_is_that_of_the_last_seconds(tmp_path: Path) -> None:
    history = started(tmp_path)
    for step in range(30):
        busy, waited = (0.9 * (step + 1), 0.1 * (step + 1)) if step < 15 else (13.5, 1.5 + 2.0 * (step - 14))
        history.step_done(line(step, stage(1, step, busy=busy, wait_input=waited), feed_wait_seconds=0.5 * step))
    now = document(history)["now"]
    assert now["stages"]["1"]["shares"] == pytest.approx([0.0, 1.0, 0.0, 0.0])
    sent = now["stages"]["1"]["bytes_per_second"]
    assert sent == pytest.approx(250.0)
    assert now["feed_wait"] == pytest.approx(0.25)
    assert (now["step"], now["epoch"]) == (29, 2)


def test_an_alarm_is_on_until_it_is_cleared(tmp_path: Path) -> None:
    history = started(tmp_path)
    for kind, where in [("alarm", None), ("alarm", 2), ("restart", 2), ("cleared", None)]:
        history.event(event(kind, "restart" if kind == "restart" else "starved", where))
    history.step_done(line(0))
    value = document(history)
    assert [(alarm["name"], alarm["stage"]) for alarm in value["now"]["alarms"]] == [("starved", 2)]
    assert [one["kind"] for one in value["events"]] == ["alarm", "alarm", "restart", "cleared"]
    assert [value["now"]["stages"][index]["restarts"] for index in ("1", "2")] == [0, 1]


def test_events_are_bounded(tmp_path: Path) -> None:
    history = started(tmp_path, max_events=10)
    for number in range(100):
        history.event(event("note", at=float(number)))
    assert [one["time"] for one in document(history)["events"]] == [float(number) for number in range(90, 100)]


def test_a_reader_gets_what_is_new_and_misses_nothing(tmp_path: Path) -> None:
    history = started(tmp_path, max_rows=64)
    history.step_done(line(0))
    history.event(event("note"))
    known = document(history)
    history.step_done(line(1, stage(1, 1, loss=3.0)))
    history.event(event("alarm"))
    news = history.since(known["id"])
    assert news is not None
    found = json.loads(news.text)
    assert (found["start"], found["steps"], found["facts"]) == (0, [0, 1], None)
    assert found["columns"]["1"]["loss"] == [1.0, 3.0]
    assert [one["kind"] for one in found["events"]] == ["alarm"]
    assert json.loads(news.text)["id"] == document(history)["id"]


def test_a_reader_whose_copy_cannot_be_mended_is_told_so(tmp_path: Path) -> None:
    history = started(tmp_path, max_rows=4, max_events=2)
    history.step_done(line(0))
    old = document(history)["id"]
    for number in range(5):
        history.event(event("note", at=float(number)))
    assert history.since(old) is None, "events have been forgotten that it has not seen"
    recent = document(history)["id"]
    for step in range(1, 6):
        history.step_done(line(step))
    assert history.since(recent) is None, "the buckets are wider now"
    assert started(tmp_path).since(document(history)["id"]) is None, "another process"
    for nonsense in ("", "x", "-".join([recent.split("-")[0], "2", "9" * 400, "0"]), "a-b-c-d", recent + "\n"):
        assert history.since(nonsense) is None, nonsense


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_a_run_that_goes_on_is_shown_from_its_first_step(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [line(step) for step in range(8)])
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 8, "ti')
    write_lines(tmp_path / "events.jsonl", [event("alarm").to_json(), {"kind": "no such"}, event("snapshot").to_json()])
    history = Told()
    history.run_started(facts(tmp_path, start_step=6))
    for step in (6, 7):
        again = {"busy": 0.3 * (step - 5), "wait_input": 0.1 * (step - 5), "link_bytes": 500 * (step - 5)}
        history.step_done(line(step, stage(1, step, **again), time=90_000.0 + 2 * step))
    value = document(history)
    assert value["steps"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert value["columns"]["1"]["busy"] == pytest.approx([0.3] * 8)
    assert value["columns"]["0"]["step_seconds"] == [None, 2, 2, 2, 2, 2, None, 2], "the pause is no step"
    assert [one["kind"] for one in value["events"]] == ["alarm", "snapshot"]
    assert value["now"]["alarms"] == [], "whether it still holds is found out anew"


@pytest.mark.parametrize(
    "damage",
    [
        "[1]", "7", '{"step": 0}', '{"step": 0, "time": NaN, "stages": []}', "\x00\xff",
        '{"step": "0", "time": 1, "stages": []}',
        '{"step": 0, "time": 1, "stages": [{"stage": 1.5}]}', '{"step": 0, "time": 1, "stages": [5]}',
        '{"step": -1, "time": 1, "stages": []}', '{"step": true, "time": 1, "stages": []}', "[" * 100_000,
    ],
)  # fmt: skip
def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path, damage: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{damage}\n{json.dumps(line(1))}\n", errors="surrogateescape")
    history = Told()
    history.run_started(facts(tmp_path, start_step=5))
    assert document(history)["steps"] == [1]


def test_of_a_line_with_odd_values_the_numbers_are_shown(tmp_path: Path) -> None:
    odd = stage(1, 0, terms=[1], online={"linear": 10**400}, added=7, link_bytes="many")
    write_lines(tmp_path / "metrics.jsonl", [line(0, odd, {"stage": 0, "loss": 1.0}, added={"seconds": "2"})])
    history = History(ActiveAlarms())
    history.run_started(facts(tmp_path, start_step=5))
    columns = document(history)["columns"]
    assert (columns["1"]["loss"], columns["1"]["busy"]) == ([1.0], [0.3])
    assert not {"link_bytes", "term:0", "online:linear"} & columns["1"].keys()
    assert "step_seconds" not in columns["0"]


def test_a_long_file_is_read_in_parts_which_add_up_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    more = {"note": "x" * 2000, "added": {"seconds": 2.0}}
    steps = WHOLE_BYTES * 2 // 2000
    with path.open("w") as file:
        for step in range(steps):
            file.write(json.dumps({**line(step, stage(1, step, added={"busy": 0.3})), **more}) + "\n")
    lines = sampled_steps(path, steps)
    found = [one["step"] for one in lines]
    assert found[0] == 0
    assert steps - 10 < found[-1] < steps
    assert len(found) == len(set(found)) <= 2048
    assert max(after - before for before, after in pairwise(found)) < 20
    assert sum(one["stages"][0]["added"]["busy"] for one in lines) == pytest.approx(0.3 * (found[-1] + 1))
    assert sum(one["added"].get("seconds", 0) for one in lines) == pytest.approx(2.0 * found[-1])


def test_a_history_without_files_begins_empty(tmp_path: Path) -> None:
    history = Told()
    assert document(history)["facts"] is None
    history.run_started(facts(tmp_path / "none", start_step=4))
    assert document(history)["steps"] == []
    assert document(history)["facts"]["total_steps"] == 1000


def test_a_configuration_with_an_infinite_number_is_still_json(tmp_path: Path) -> None:
    history = Told()
    history.run_started(
        RunFacts(
            name="x",
            path=tmp_path,
            config={"clip": float("inf"), "at": tmp_path},
            stages=1,
            total_steps=1,
            steps_per_epoch=1,
            start_step=0,
            started=100.0,
        )
    )
    assert document(history)["facts"]["config"] == {"clip": "Infinity", "at": str(tmp_path)}


def test_the_outcome_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, history = Clock(monkeypatch, history_module, document_module), started(tmp_path)
    history.step_done(line(0))
    clock.now += 50
    before = history.version
    assert history.outcome is None
    assert document(history)["ended"] is None
    history.run_ended("failed: stage 2 died")
    assert history.version > before
    clock.now += 7
    value = document(history)
    assert value["outcome"] == "failed: stage 2 died"
    assert (value["ended"], value["clock"]) == (1050, 1057), "not the time of the last step"


def test_what_many_pages_are_told_is_made_once(tmp_path: Path) -> None:
    history = started(tmp_path)
    history.step_done(line(0))
    known = document(history)["id"]
    history.step_done(line(1))
    assert history.since(known) is history.since(known)
    first = history.since(known)
    history.step_done(line(2))
    assert history.since(known) is not first
