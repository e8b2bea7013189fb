"""`docs/quickstart.ipynb` runs as it stands and gives what is stored in it; the command prints lines in a cell."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.onward.notebooks import NOTEBOOK, executed, outputs
from tests.sources import REPOSITORY
from workers.observing.terminal import verbosity

LOSSES = re.compile(r"^(\d+) block 1: ([\d.]+)", re.M)


def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_what_is_stored_was_executed_in_order_without_an_error() -> None:
    notebook = stored()
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert not any("Warning" in text for text in outputs(notebook))


@pytest.mark.processes
@pytest.mark.slow
def test_the_notebook_runs_and_gives_what_is_stored(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = "\n".join(executed(tmp_path, environment))
    assert "done after 6 steps" in found, "a table that was drawn until the end"
    losses = [[step for step, _ in LOSSES.findall(text)] for text in (found, "\n".join(outputs(stored())))]
    assert losses[0] == losses[1] == ["0", "1", "2", "3", "4", "5"]


def test_a_cell_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`!onward train` has a pseudo-terminal, and the cell would show its control sequences."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-color")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert verbosity.attached()
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not verbosity.attached()
