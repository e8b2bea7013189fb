"""The fields of a run's files that the documentation names are those that a run writes, no fewer and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs.site import run_directory
from launch.failure import write_failure
from tests.pipeline.small import small_config
from tests.runs import onward, train
from tests.sources import REPOSITORY, text_of
from tests.workers.evaluating.evaluating_runs import image_folder
from workers.control.failures import KINDS, FailureReport
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.goodput import Goodput
from workers.observing.headroom_watch import HeadroomWatch
from workers.observing.history_file import each_step, read_events
from workers.observing.live.history import History
from workers.observing.observer import RunFacts
from workers.run.files import RunDir

DOCUMENT = REPOSITORY / "docs" / "reference" / "fields.md"


@dataclass(frozen=True)
class Field:
    """A field of a table; `always` if the table says nothing of when it may be missing."""

    name: str
    always: bool

    def is_of(self, path: str) -> bool:
        pattern = re.escape(self.name.removeprefix("."))
        return bool(re.fullmatch(re.sub(r"STAGE|K(?![a-z])", r"\\d+", pattern.replace("NAME", ".+")), path))


def documented(name: str) -> list[Field]:
    """The fields of a file."""
    text = text_of(DOCUMENT).partition(f"\n## {name}\n")[2]
    table = text[text.index("\n|") :].lstrip("\n").split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("|").split(" |")] for row in table]
    return [Field(field, not row[2].strip()) for row in rows for field in re.findall(r"`([^`]+)`", row[0])]


def paths(value: Any, above: str = "") -> Iterator[str]:
    """The paths of all leaves, as `jq` takes them, without the first dot."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{above}.{key}" if above else key)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{above}[]")
    else:
        yield above


def differences(name: str, values: list[Any]) -> Iterator[str]:
    fields = documented(name)
    written = dict.fromkeys(path for value in values for path in paths(value))
    yield from (f"{name} has .{path}" for path in written if not any(field.is_of(path) for field in fields))
    for field in fields:
        if field.always and not any(field.is_of(path) for path in written):
            yield f"{name} has no {field.name}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A small run with snapshots, probes and online measures, and its evaluation."""
    folder = tmp_path_factory.mktemp("fields")
    few = f"data={{name: image_folder, root: {image_folder(folder / 'images')}, batch_size: 8, image_size: 16}}"
    online = "evaluation.online={linear: true, quality_every: 2}"
    settings = ("snapshots.every=2", "train.max_steps=4", "metrics.every=2", "evaluation.quality.samples=6", online)
    result = train(folder, few, "evaluation.linear_probe=true", *settings)
    assert result.returncode == 0, result.stderr
    evaluated = onward("evaluate", folder / "run", "evaluation.knn.k=[3]")
    assert evaluated.returncode == 0, evaluated.stderr
    return RunDir(folder / "run")


def history(run: RunDir) -> Any:
    """What the live page would have served: its own history, of the lines that the run has written."""
    goodput, headroom = Goodput.of(run), HeadroomWatch(small_config(), 20.0)
    kept = History(ActiveAlarms(), goodput, headroom)
    state = json.loads(run.coordinator.read_text())
    total, per_epoch, stages = (state[name] for name in ("total_steps", "steps_per_epoch", "stages"))
    facts = RunFacts(name="run", path=Path("nowhere"), config={"seed": 1}, stages=stages, total_steps=total,
                     steps_per_epoch=per_epoch, start_step=0, started=1.0)  # fmt: skip
    kept.run_started(facts)
    for line in each_step(run.metrics, []):
        kept.step_done(line)
        headroom.step_done(line, {}, line["time"])
    headroom.at_end(1.0)
    for event in read_events(run.events)[0]:
        kept.event(event)
    return json.loads(kept.whole().text)


@pytest.mark.processes
def test_every_field_is_documented_and_every_documented_field_is_there(run: RunDir, tmp_path: Path) -> None:
    write_failure(RunDir(tmp_path), FailureReport("stage 2", 3, "raised", "it failed"))
    objects = {path.name: [json.loads(path.read_text())] for path in (run.provenance, run.coordinator, run.report)}
    lines = {path.name: path.read_text().splitlines() for path in (run.metrics, run.events)}
    objects |= {name: list(map(json.loads, texts)) for name, texts in lines.items()}
    objects["failure.json"] = [json.loads((tmp_path / "failure.json").read_text())]
    objects["evaluation.json"] = [json.loads((run.path / "evaluation.json").read_text())]
    manifests = [json.loads(path.read_text()) for path in run.snapshots.glob("*/manifest.json")]
    objects["snapshots/step_N/manifest.json"] = manifests
    objects["/history.json"] = [history(run)]
    wrong = [found for name, values in objects.items() for found in differences(name, values)]
    assert not wrong, "\n".join(wrong)
    told = set(re.findall(r"^## (\S+)$", text_of(DOCUMENT), re.M))
    assert told == objects.keys() | {"elsewhere.json"}
    kinds = {path.name for path in run.path.iterdir() if path.suffix in (".json", ".jsonl")}
    assert kinds <= told
    listed = re.findall(r"^\| (`[^|]+`) \|", run_directory.page(), re.M)
    named = {part.strip("/").split("/")[0] for names in listed for part in re.findall(r"`([^`]+)`", names)}
    assert {path.name for path in run.path.iterdir() if not path.name.startswith(".")} - named == set()


def test_every_kind_of_failure_is_named() -> None:
    kinds = text_of(DOCUMENT).partition("\n## failure.json\n")[2].partition("\n## ")[0]
    assert [kind for kind in KINDS if f"`{kind}`" not in kinds] == []


def test_a_field_that_is_new_or_gone_is_found() -> None:
    failure = {"who": "a", "cause": "b", "kind": "c", "message": "d", "exit_code": 1, "time": 1.0}
    assert list(differences("failure.json", [failure])) == ["failure.json has no .step"]
    attempt = {"began": 1.0, "restarted": False, "before": {"run": 0.0}}
    full = {"stages": 4, "attempt": attempt, "total_steps": 1, "steps_per_epoch": 1, "metrics": "", "news": {"x": [1]}}
    assert list(differences("coordinator.json", [full])) == ["coordinator.json has .news.x[]"]
