"""`onward.plan`: what `onward plan` finds, as values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.partition.request import asked, what_if_overrides
from launch.prepare.thread_advice import process_count
from onward.config import read_checked
from onward.overrides import as_text
from pipeline import config as settings

if TYPE_CHECKING:
    from launch.commands.plan_answers import Planned, WhatIf


def plan(
    config: settings.Config | str | os.PathLike[str],
    *,
    gpus: int | None = None,
    hosts: int | None = None,
    gpus_per_host: int | None = None,
    gpu: str | None = None,
    measure: bool = False,
    keep_cuts: bool = False,
    stages: int | Literal["any"] | None = None,
    write: str | os.PathLike[str] | None = None,
    what_if: str | Mapping[str, object] | None = None,
    overrides: Mapping[str, object] | Sequence[str] | None = None,
    trust: bool = True,
    **keywords: object,
) -> Planned | WhatIf:
    """Find the cuts, replicas and recomputing with which so many GPUs make the most images/s; start nothing.

    Args:
        config: the path of a YAML file, the name of a preset, or an `onward.Config`.
        gpus: how many there are, on all hosts together; or `hosts` and `gpus_per_host`.
        gpu: which, such as `h100`; that of this machine, or its processor, if not given.
        measure: time the parts of the network on this machine, for a minute; else they are estimated.
        keep_cuts: keep the cuts, and so the blocks that learn.
        stages: another number of blocks, or `any`: another method, as each block has a loss of its own.
        write: a new file for the plan as a configuration that `train` starts.
        what_if: plan nothing; compare the run as it is with these changes, such as `stages.2.replicas=2`.
        overrides: values by dotted key, or `KEY=VALUE` as the command line has them.
        trust: import and call what the configuration names, although it is another user's file.
        keywords: keys with two underscores for every dot: `data__batch_size=1024`.

    Returns:
        Of a plan `planned`, its configuration; `changes`, the keys that differ; `found`, with the stages and images/s
        of `plan` and of the run as it is, `now`. Of a comparison `found.given` and `found.changed`. `document` has all
        of it as JSON has it, and `str()` is Markdown.

    Raises:
        ConfigError, UserError: there is nothing to plan, nothing fits, or more GPUs than can be used.
    """
    from launch.commands.plan import check_what_if, compare_settings, plan_run

    texts = list(overrides) if isinstance(overrides, Sequence) else as_text(overrides, {})
    texts += as_text(None, keywords)
    changes = None if what_if is None else _changes(what_if)
    read, notes = read_checked(config, texts, trust)
    request = asked(
        gpus,
        hosts,
        gpus_per_host,
        stages,
        gpu=gpu,
        measure=measure,
        keep_cuts=keep_cuts,
        otherwise=None if changes is None else process_count(read),
    )
    file = None if write is None else Path(write)
    if changes is None:
        return plan_run(read, notes, request, file)
    check_what_if(request, file)
    return compare_settings(read, read_checked(config, [*texts, *changes], trust)[0], changes, request)


def _changes(given: str | Mapping[str, object]) -> list[str]:
    return what_if_overrides(given) if isinstance(given, str) else as_text(given, {})
