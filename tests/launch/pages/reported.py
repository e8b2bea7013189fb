"""Run directories that nobody trained, with everything in them that a report can show."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from launch.prepare.run_dir import begin_run
from pipeline.validation.loading import load_config
from tests.launch.commands.evaluations import full
from tests.observing.traces import write_pipeline
from workers.run.files import RunDir

QUICKSTART = Path(__file__).resolve().parents[3] / "configs" / "quickstart.yaml"
BEGAN = 1_770_000_000.0
EMPTY_TAGS = ("meta", "link", "br", "path", "use", "rect", "img", "hr")


def write_run(folder: Path, *overrides: str, steps: int = 60, terms: Sequence[str] = ("on_diagonal",)) -> RunDir:
    """A run of `steps` steps that was neither traced nor ended."""
    folder.mkdir(parents=True, exist_ok=True)
    run = RunDir(folder)
    begin_run(load_config(str(QUICKSTART), overrides), folder, BEGAN - 7.5)
    run.metrics.write_text("".join(json.dumps(line(step, terms)) + "\n" for step in range(steps)))
    return run


def line(step: int, terms: Sequence[str] = ("on_diagonal",), stages: int = 4, **more: Any) -> dict[str, Any]:
    """Of `metrics.jsonl`; stage 2 is restarted before step 30."""
    return {
        "step": step, "epoch": step // 39, "time": BEGAN + 0.5 * step, "images": 256, "images_per_second": 500.0 + step,
        "eta_seconds": 10.0, "feed_wait_seconds": 0.01 * step,
        "stages": [_stage(stage, step, terms) for stage in range(1, stages + 1)], **more,
    }  # fmt: skip


def _stage(stage: int, step: int, terms: Sequence[str]) -> dict[str, Any]:
    since = step - 30 if stage == 2 and step >= 30 else step
    measured = {"linear": 0.1 + 0.01 * stage + 0.3 * (1 - math.exp(-step / 20))}
    if step % 5 == 0:
        measured |= {
            "rankme": 10.0 * stage + 0.1 * step,
            "lidar": 5.0 * stage,
            "collapse": 0.06,
            "alpha": 1.0 + 0.1 * stage,
        }
    norms = {"gradient_norm": 3.0 / stage, "update_norm": 0.01 * stage} if step % 10 == 0 else {}
    return {
        "stage": stage, "step": step, "loss": 100.0 / (1 + step) + stage, "learning_rate": 0.1 * step,
        "terms": dict.fromkeys(terms, 50.0 / (1 + step) + stage), "skipped": 0, "online": measured,
        "busy": 0.3 * (since + 1), "wait_input": 0.05 * stage * (since + 1), "wait_output": 0.1 * (since + 1),
        "copying": 0.05 * (since + 1),
        "queue_depth": (step + stage) % 3, "link_bytes": 1000 * (since + 1), "gradient_norm": None, "update_norm": None,
        **norms, "memory_bytes": 5.0e8 + 1e7 * stage, "cuda_bytes": None, "snapshot_seconds": None,
    }  # fmt: skip


def event(kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"time": BEGAN + 5, "kind": kind, "name": kind, "stage": None, "step": None, "text": text, **more}


def finish(run: RunDir) -> None:
    """As a run that was trained to its end and evaluated leaves it, with its trace."""
    scores = [{"trunk": 0.5 + 0.05 * block, "expansion": 0.6 + 0.05 * block} for block in range(1, 5)]
    after = [{name: value + 0.1 for name, value in block.items()} for block in scores]
    report = {
        "images": 15360,
        "images_per_second": 555.5,
        "final_digest": "ab" * 32,
        "untrained": scores,
        "trained": after,
        "stages": [{"stage": stage, "flops_per_second": 2.5e12 * stage, "mfu": 0.01 * stage} for stage in (1, 2, 3, 4)],
    }
    run.report.write_text(json.dumps(report))
    happened = [
        event("alarm", "stage 3 has collapsed", stage=3, step=20, name="collapse"),
        event("restart", "stage 2 comes back from step 30", stage=2, step=30),
        event("cleared", "stage 3 has recovered", stage=3, step=40, name="collapse"),
    ]
    run.events.write_text("".join(json.dumps(each) + "\n" for each in happened))
    (run.path / "evaluation.json").write_text(json.dumps(full(corruptions=False).to_json()))
    run.trace.mkdir()
    write_pipeline(run.trace, stages=4, steps=20)


class Page(HTMLParser):
    """What a page consists of: its elements with their attributes, and its text; every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    @property
    def text(self) -> str:
        """All of it, in order."""
        return " ".join(" ".join(self.words).split())

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY_TAGS:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
