"""Writes the pages of the reference that are made from the code: `python -m docs.site.generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.site import command_line, configuration, presets, python_api, run_directory, surroundings

FOLDER = Path(__file__).resolve().parents[1] / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line.page,
    "configuration.md": configuration.page,
    "presets.md": presets.page,
    "run-directory.md": run_directory.page,
    "alarms.md": surroundings.alarms,
    "exit-codes.md": surroundings.exit_codes,
    **({"python.md": python_api.page} if python_api.there else {}),
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
