"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that 'onward train' wrote.")]
OverridesHere = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Override where and how it is computed here: device, data.root."),
]
FromSteps = Annotated[
    int | None,
    typer.Option("--from", metavar="STEPS", min=0, help="Begin with the snapshot after so many steps or fewer."),
]
TrustRun = Annotated[
    bool, typer.Option("--trust", help="Import and call what the configuration names, though it is another's.")
]
