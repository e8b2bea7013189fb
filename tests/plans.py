"""What is wrong with an `onward plan` that a document shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.partition.request import asked, check_plannable, what_if_overrides
from launch.prepare.presets import configuration_file
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import dump_config, load_for_start

NUMBERS = ("gpus", "hosts", "gpus_per_host", "stages", "gpu", "measure", "keep_cuts")


def wrong_question(given: Mapping[str, Any], real: Callable[[Sequence[str]], list[str]], place: Path) -> Iterator[str]:
    """What is refused at once; a file that is to be written is there afterwards.

    Args:
        given: parameters of the command, by name.
        real: makes of what a document names what is here.
        place: the working directory.
    """
    file, *overrides = real([str(given["config"]), *(given["overrides"] or [])])
    try:
        changes = what_if_overrides(given["what_if"]) if given["what_if"] else []
        config, _ = load_for_start(configuration_file(file), [*overrides, *changes])
        check_plannable(config)
        asked(**{name: given[name] for name in NUMBERS}, otherwise=1 if changes else None)
    except (ConfigError, UserError) as error:
        yield str(error)
        return
    if given["write"] is not None:
        (place / given["write"]).write_text(dump_config(config))
