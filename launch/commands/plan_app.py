"""`onward plan`, as the command line has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.errors import failures_in_words
from launch.partition.request import asked, what_if_overrides
from launch.prepare.presets import configuration_file
from launch.prepare.thread_advice import process_count
from pipeline.validation.loading import load_for_start
from workers.observing.terminal import verbosity

if TYPE_CHECKING:
    from launch.commands.plan_answers import Planned, WhatIf

Gpus = Annotated[int | None, typer.Option(metavar="N", help="How many GPUs there are, on all hosts together.")]
Hosts = Annotated[int | None, typer.Option(metavar="H", help="How many hosts have them; 1 if not given.")]
GpusPerHost = Annotated[int | None, typer.Option(metavar="G", help="In place of --gpus: those of each host.")]
GpuName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which GPU, such as h100; that of this machine, or its processor.")
]


def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a preset: quickstart.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Override keys, for example data.batch_size=1024.")
    ] = None,
    gpus: Gpus = None,
    hosts: Hosts = None,
    gpus_per_host: GpusPerHost = None,
    gpu: GpuName = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the network's parts on this machine, for a minute; else estimate.")
    ] = False,
    keep_cuts: Annotated[
        bool, typer.Option("--keep-cuts", help="Keep the cuts, and so the blocks that learn.")
    ] = False,
    stages: Annotated[
        str | None, typer.Option(metavar="K|any", help="Allow another number of blocks, which is another method.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as a configuration that 'train' starts.")
    ] = None,
    what_if: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE,...", help="Plan nothing: compare the run as it is with these changes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as one JSON document.")] = False,
) -> None:
    """Find the cuts, replicas and recomputing with which N GPUs make the most images/s; start nothing."""
    with failures_in_words():
        from launch.commands.plan import check_what_if, compare_settings, plan_run
        from launch.results.printing import command_console

        changes = None if what_if is None else what_if_overrides(what_if)
        file, given = configuration_file(config), overrides or []
        settings, notes = load_for_start(file, given)
        request = asked(
            gpus,
            hosts,
            gpus_per_host,
            stages,
            gpu=gpu,
            measure=measure,
            keep_cuts=keep_cuts,
            otherwise=None if changes is None else process_count(settings),
        )
        console = command_console(quiet=as_json)
        found: Planned | WhatIf
        if changes is None:
            found = plan_run(settings, notes, request, write, console)
        else:
            check_what_if(request, write)
            changed, _ = load_for_start(file, [*given, *changes])
            found = compare_settings(settings, changed, changes, request, console)
        if as_json:
            verbosity.say(json.dumps(found.document, indent=2), important=True)
        else:
            found.show(console)
