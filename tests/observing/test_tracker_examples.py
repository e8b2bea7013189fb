"""The examples of `docs/how-to/tracker.md` as they stand there, with stand-ins for the services' packages.

The stand-ins take the arguments that the documentation of wandb 0.31 and mlflow 3 gives for these calls, and no others.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.observing import TrackerConfig as Settings
from tests.observing.made_up import alarm, facts, line, stage
from tests.runs import ROOT
from workers.observing.trackers import start_trackers

WANDB = """
    calls = []

    class Run:
        def log(self, data, step=None, commit=None):
            assert isinstance(data, dict)
            calls.append(("log", step, data["stage_1/loss/invariance"]))
        def finish(self, exit_code=None, quiet=None):
            calls.append(("finish", exit_code))

    def init(*, entity=None, project=None, dir=None, id=None, name=None, config=None, resume=None, mode=None):
        assert dir.is_dir()
        calls.append(("init", project, id, resume, config["link"]))
        return Run()
"""
MLFLOW = """
    from types import SimpleNamespace
    calls = []

    def set_experiment(experiment_name=None, experiment_id=None):
        calls.append(("experiment", experiment_name))

    def start_run(run_id=None, experiment_id=None, run_name=None, nested=False, tags=None):
        calls.append(("start", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "0f0f"))

    def log_metrics(metrics, step=None, synchronous=None):
        assert all(isinstance(value, float) for value in metrics.values())
        calls.append(("log", step, metrics["stage_1.loss"], metrics["stage_1.loss.invariance"]))

    def end_run(status="FINISHED"):
        calls.append(("end", status))
"""


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The services' calls so far, by module, where the examples can be imported."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "tracker.md").read_text(), re.DOTALL)
    own = {"my_wandb": blocks[0], "my_mlflow": blocks[1], "wandb": WANDB, "mlflow": MLFLOW}
    for name, source in own.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield sys.modules  # type: ignore[misc]
    for name in own:
        sys.modules.pop(name, None)


def tracked(kind: str, options: dict[str, Any], outcome: str, folder: Path) -> None:
    told: list[Any] = []
    observer = start_trackers([Settings(kind=kind, options=options)], facts(folder), told.append)
    observer.step_done(line(7, [stage(1, 7)]))
    observer.event(alarm(1, 7))
    observer.run_ended(outcome)
    assert told == []


def test_weights_and_biases(tmp_path: Path, examples: dict[str, Any]) -> None:
    tracked("my_wandb:Wandb", {"project": "blocks"}, "interrupted", tmp_path)
    assert examples["wandb"].calls == [
        ("init", "blocks", tmp_path.name, "allow", {"depth": 2}), ("log", 7, 1.5), ("finish", 1),
    ]  # fmt: skip


def test_mlflow_goes_on_with_its_run(tmp_path: Path, examples: dict[str, Any]) -> None:
    tracked("my_mlflow:MLflow", {"experiment": "blocks"}, "failed: stage 1", tmp_path)
    tracked("my_mlflow:MLflow", {"experiment": "blocks"}, "done", tmp_path)
    once = ("experiment", "blocks")
    logged = ("log", 7, 3.0, 1.5)
    assert examples["mlflow"].calls == [
        once, ("start", None, tmp_path.name), logged, ("end", "FAILED"),
        once, ("start", "0f0f", tmp_path.name), logged, ("end", "FINISHED"),
    ]  # fmt: skip


def test_both_are_short() -> None:
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "tracker.md").read_text(), re.DOTALL):
        body = [row for row in block.splitlines() if row.strip() and not row.startswith(("import", "from", "class"))]
        assert len(body) <= 11
