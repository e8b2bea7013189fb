"""Executes the notebook of the documents in a kernel, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.sources import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "quickstart.ipynb"
SECONDS = 600


def executed(folder: Path, environment: Mapping[str, str], python: str = sys.executable) -> list[str]:
    """What its cells have printed or shown, as text, in order.

    Args:
        folder: in which the kernel works.
        environment: of the kernel.
        python: that runs it.

    Raises:
        CellExecutionError: a cell has raised.
    """
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    manager = KernelManager()
    manager.kernel_spec.argv[0] = python  # type: ignore[union-attr]  # the installed one names this environment's
    client = NotebookClient(
        notebook, km=manager, timeout=SECONDS, allow_errors=False, resources={"metadata": {"path": str(folder)}}
    )
    try:
        with client.setup_kernel(env=dict(environment)):
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
    finally:
        manager.shutdown_kernel(now=True)  # a client ends only a kernel whose manager it has made itself
    return outputs(notebook)


def outputs(notebook: Any) -> list[str]:
    """The text of every output of every cell."""
    return [
        str(output.get("text") or output.get("data", {}).get("text/plain", output))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    ]
