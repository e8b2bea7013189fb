"""Main program of the process that makes the initial weights of a run, before training.

It is given a configuration, and fits the source of every stage (`init_from`) to it; with a folder it also writes what
the stages begin with, see `workers.snapshots.initial`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config.initial import InitFromConfig
from pipeline.errors import UserError, first_line
from pipeline.stage.state import Facts
from workers.determinism.child import Note, answer_task
from workers.run.files import RunDir
from workers.run.tensor_files import save_tensors
from workers.snapshots.manifest import StageFile, write_initial_manifest
from workers.weights.fitting import (
    Fit,
    MisfitError,
    expected_facts,
    family_of,
    fit_stages,
    image_size_remedy,
    joined,
    names_in_words,
    unexpected_rows,
)
from workers.weights.sources import Source
from workers.weights.tensors import OpenedWeights, opened_weights


@dataclass(frozen=True)
class SourceGroup:
    """Stages that begin with one source.

    Args:
        key: of the configuration, for messages.
        settings: how it is taken.
        stages: counted from 1.
    """

    key: str
    settings: InitFromConfig
    stages: tuple[int, ...]


def groups_of(config: Config) -> list[SourceGroup]:
    """The sources of a run, each with the stages that begin with it."""
    by_settings: dict[InitFromConfig, list[int]] = {}
    for index in range(1, config.num_stages + 1):
        settings = config.stage(index).init_from
        if settings.path is not None:
            by_settings.setdefault(settings, []).append(index)
    return [
        SourceGroup(
            "init_from" if settings == config.init_from else f"stages.{stages[0]}.init_from", settings, tuple(stages)
        )
        for settings, stages in by_settings.items()
    ]


def work(task: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """Fit, and with `run` write; the answer has sentences for the user, or what is wrong and a table of it."""
    config = Config.model_validate_json(task["config"])
    try:
        run = None if task["run"] is None else RunDir(Path(task["run"]))
        return {"notes": initial_weights(config, run)}
    except MisfitError as error:
        return {"problem": str(error), "rows": error.rows}
    except UserError as error:
        return {"problem": str(error)}
    except Exception as error:  # whatever code of the user's raises
        return {"problem": f"init_from: {first_line(error)[:300]}"}


def initial_weights(config: Config, run: RunDir | None) -> list[str]:
    """Fit the weights that `init_from` names to the stages, and write them into the directory of the run, if one is
    given.

    Returns:
        One sentence per source.

    Raises:
        UserError: a source cannot be read; `MisfitError` where it does not fit.
    """
    expected = {index: expected_facts(config, index) for index in range(1, config.num_stages + 1)}
    files: dict[int, StageFile] = {}
    notes = []
    for group in groups_of(config):
        source = Source.of(str(group.settings.path))
        with ExitStack() as stack:
            weights = stack.enter_context(opened_weights(source))
            renamed, fits = fit_stages(config, weights, group.settings, expected)
            rows = [row for index in group.stages for row in fits[index].rows]
            rows += unexpected_rows(renamed, expected.values(), group.settings)
            words = names_in_words(family_of(config.model), renamed)
            if rows:
                raise MisfitError(group.key, source.name, words, rows, image_size_remedy(config.model, fits.values()))
            notes.append(_sentence(group, source, words, weights, fits, renamed.left_out))
            if run is not None:
                files |= dict(_written(run, group, weights, fits, expected))
    if run is not None:
        write_initial_manifest(run, files)
    return notes


def _written(
    run: RunDir,
    group: SourceGroup,
    weights: OpenedWeights,
    fits: Mapping[int, Fit],
    expected: Mapping[int, Mapping[str, Facts]],
) -> Iterator[tuple[int, StageFile]]:
    for index in group.stages:
        tensors = {name: joined(weights, parts, expected[index][name]) for name, parts in fits[index].names.items()}
        path = run.initial / f"stage_{index}.safetensors"
        digest = save_tensors(path, tensors, root=run.path)
        about = {"path": str(group.settings.path)[:1000], "sha256": group.settings.sha256}
        yield index, StageFile(path.name, path.stat().st_size, digest, about)


def _sentence(
    group: SourceGroup,
    source: Source,
    words: str,
    weights: OpenedWeights,
    fits: Mapping[int, Fit],
    left_out: Sequence[str],
) -> str:
    taken = sum(len(fits[index].names) for index in group.stages)
    heads = [index for index in group.stages if fits[index].head]
    text = (
        f"{_stages(group.stages)} begin{'s' * (len(group.stages) == 1)} with '{source.name}': {taken} tensors, {words}"
    )
    text += f"; heads of {_stages(heads)}" if heads else "; no heads"
    text += "".join(
        f"; not the head of stage {index} ({fits[index].why_no_head})"
        for index in group.stages
        if fits[index].why_no_head
    )
    text += f"; without the classifier ({', '.join(left_out[:4])})" if left_out else ""
    if weights.converted is not None:
        text += f"; read by a process with {', '.join(weights.converted.isolation)}"
    return text


def _stages(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"stage {indices[0]}"
    consecutive = list(indices) == list(range(indices[0], indices[-1] + 1))
    return f"stages {indices[0]} to {indices[-1]}" if consecutive else f"stages {', '.join(map(str, indices))}"


if __name__ == "__main__":
    answer_task(work)
