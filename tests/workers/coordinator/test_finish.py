"""The last line of a run says where everything is, as somebody who stands here would write it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from workers.observing.terminal.console import Console
from workers.observing.terminal.summary import print_report
from workers.run.files import RunDir

REPORT = {"stages": [], "images": 64, "images_per_second": 10.0}
LAST_LINE = "64 images, 10 images/s  ·  everything is in {}\n"


@pytest.mark.parametrize(
    ("where", "shown"), [("runs/a", "runs/a"), ("{here}/runs/a", "runs/a"), ("/elsewhere/b", "/elsewhere/b")]
)
def test_where_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, shown: str) -> None:
    monkeypatch.chdir(tmp_path)
    console = RichConsole(file=io.StringIO(), width=200)
    print_report(Console(console), RunDir(Path(where.format(here=tmp_path))), REPORT)
    assert console.file.getvalue().endswith(LAST_LINE.format(shown))  # type: ignore[attr-defined]
