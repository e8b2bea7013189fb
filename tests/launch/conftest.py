"""What tests of the command line share: a folder in which training would be accepted, and what a refusal looks like."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launch.prepare.preflight

GOOD = """\
data: {name: image_folder, root: images, batch_size: 4, image_size: 16}
model: {backbone: resnet18, width: 8, stem: cifar}
head: {width: 16, projector: [16, 16]}
train: {epochs: 2}
optimizer: {warmup_epochs: 0}
metrics: {enabled: false}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image_folder: Callable[..., Path]) -> Path:
    """The current directory: `config.yaml` and eight `images/` that training would accept; no GPU."""
    (tmp_path / "config.yaml").write_text(GOOD)
    make_image_folder(tmp_path / "images", per_class=4, classes=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch.prepare.preflight, "count_gpus", lambda: 0)
    return tmp_path


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Everything below a folder, with the contents of files."""

    def read(root: Path) -> dict[str, bytes | None]:
        return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}

    return read


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """`onward report` with one figure, where they are not the point: drawing takes a second each."""
    import launch.commands.report

    draw = launch.commands.report._pictures
    monkeypatch.setattr(
        launch.commands.report, "_pictures", lambda record: [p for p in draw(record) if p.key == "loss"]
    )


@pytest.fixture
def page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`onward report` with all figures in the page, and not drawn twice more for papers."""
    monkeypatch.setattr("launch.commands.report.save", lambda *_: [])


@pytest.fixture
def assert_refused() -> Callable[[Any, str], None]:
    """`assert_refused(outcome, pattern)`: exit code 2 and one line on stderr that the pattern is found in."""

    def check(outcome: Any, expected: str) -> None:
        assert outcome.code == 2, outcome.err
        assert "Traceback" not in outcome.err
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1, f"one line, not:\n{outcome.err}"
        assert re.search(expected, outcome.err.removeprefix("error: ").rstrip()), outcome.err

    return check
