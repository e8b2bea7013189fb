"""One evaluation, from the weights to the document: every measure that the configuration asks for, in order.

A measure that is not possible is left out with a note, so that data without labels still get the measures that need
none; where no measure is left, the first reason is raised.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from pipeline.config import Config
from pipeline.config.places import Place
from pipeline.data.sets.datasets import Split
from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from pipeline.stage.stage import Stage
from workers.evaluating.checkpoints import load_network
from workers.evaluating.context import Context
from workers.evaluating.feature_source import PACKAGES, FeatureSource
from workers.evaluating.labelled_images import LabelledImages, Progress
from workers.evaluating.probe_table import ready_stages, scores_of, table_features
from workers.evaluating.probes import measure_probes
from workers.evaluating.protocols import protocols_of
from workers.evaluating.quality import measure_quality
from workers.evaluating.ranks import Ranks
from workers.evaluating.robustness import measure_corruptions, plan_corruptions
from workers.evaluating.transfer import check_transfer, transfer_contexts
from workers.observing.terminal.drawing import ProgressLine
from workers.run.files import RunDir
from workers.snapshots.initial import begin

FOLDER = "evaluation"
"""In a run directory, for tables, figures, and the features that are kept."""
SPLITS: tuple[Split, ...] = ("train", "test")
MEASURES: tuple[tuple[str, Callable[[Context], list[Record]]], ...] = (
    ("quality", measure_quality),
    ("probes", measure_probes),
    ("corruptions", measure_corruptions),
)


@dataclass(frozen=True)
class Evaluated:
    """The results of an evaluation.

    Args:
        document: for `evaluation.json`.
        table: the probes of the trained and the untrained network, for `report.json`; None where they were not asked
            for or could not be fitted.
    """

    document: EvaluationResults
    table: dict[str, Any] | None


def evaluate(
    config: Config,
    trained_with: Config,
    run: RunDir,
    device: torch.device,
    progress: ProgressLine,
    ranks: Ranks | None = None,
) -> Evaluated | None:
    """Measure one run.

    Args:
        config: of the run, with the evaluation's settings laid over it.
        trained_with: of the run, as it was trained.
        run: where its weights are, and where features are kept.
        device: that everything is computed on.
        progress: shows how far it is.
        ranks: the processes that share the work; None for one alone.

    Returns:
        None on all ranks but the first, which measures.

    Raises:
        UserError: the weights cannot be read, or nothing at all can be measured.
        TrainingError: another process does not answer.
    """
    features, labelled = run.path / FOLDER / "features", LabelledImages(progress.note)

    def source_of(stages: list[Stage]) -> FeatureSource:
        return FeatureSource(config, stages, device, features, note=progress.note, ranks=ranks, labelled=labelled)

    stages = ready_stages(config, device)
    load_network(run, stages, config.evaluation.checkpoint, progress.note)
    source = source_of(stages)
    data, show = config.data, progress.show
    context = Context(
        config, stages, device, run.path, source, data=data, data_name=data.name, progress=show, note=progress.note
    )
    for check in (Context.check_blocks, plan_corruptions, check_transfer):
        check(context)
    untrained = None
    if config.evaluation.checkpoint is None and "quick" in config.evaluation.linear and run.report.is_file():
        stages_before = ready_stages(config, device)
        begin(run, stages_before)
        untrained = _untrained_table(source_of(stages_before), show)
    if untrained is not None or ranks is not None:
        _prefetch(source, context.places, show)
    if ranks is not None and not ranks.leads:
        return None
    source.ranks = None  # the others have ended
    records = _measured(context)
    trained = None if untrained is None else _trained_table(context, records)
    table = None if trained is None else {"untrained": untrained, "trained": trained, **labelled.report()}
    return Evaluated(_document(context, trained_with, records), table)


def _prefetch(source: FeatureSource, places: tuple[Place, ...], progress: Progress) -> bool:
    """Make all features that will be asked for, one pass per part; returns whether that was possible.

    What is wrong is reported by the measure that needs them. But where processes share the work, one that cannot go on
    ends all.
    """
    try:
        for split in SPLITS:
            source.images(source.config.data, split, progress)
    except UserError:
        return False
    try:
        for split in SPLITS:
            table_features(source, split, places, progress)
    except UserError:
        if source.ranks is not None:
            raise
        return False
    return True


def _untrained_table(source: FeatureSource, progress: Progress) -> list[dict[str, Any]] | None:
    """The rows of the network as it was initialised; None where there can be none."""
    if not _prefetch(source, (), progress):
        return None
    ranks, source.ranks = source.ranks, None
    return scores_of(source, progress=progress) if ranks is None or ranks.leads else []


def _trained_table(context: Context, records: Iterable[Record]) -> list[dict[str, Any]] | None:
    measured = {
        record.place: record.value
        for record in records
        if (record.data, record.measure, record.metric) == (context.data_name, "linear/quick", "top1")
    }
    try:
        return scores_of(context.source, measured)
    except UserError:  # the probes have reported it
        return None


def _measured(context: Context) -> list[Record]:
    """Every measure in order, on the run's own data and then on the others."""
    records: list[Record] = []
    problems: list[UserError] = []
    for name, measure in _jobs(context):
        try:
            measured = measure()
        except ConfigError:
            raise
        except UserError as problem:
            context.note(f"{name} left out: {problem}")
            problems.append(problem)
            continue
        records += [record for record in measured if record.finite]
        for record in measured:
            if not record.finite:
                context.note(f"{record.measure} {record.metric} of {record.place} is {record.value}: left out")
    if not records:
        off = "nothing is to be measured: every part of the section evaluation is off. Switch one on, such as quality"
        raise problems[0] if problems else UserError(off)
    return records


def _jobs(context: Context) -> Iterator[tuple[str, Callable[[], list[Record]]]]:
    for name, measure in MEASURES:
        yield name, partial(measure, context)
    for other in transfer_contexts(context):
        yield f"transfer to {other.data_name}", partial(measure_probes, other)


def _document(context: Context, trained_with: Config, records: list[Record]) -> EvaluationResults:
    settings, versions = context.settings, {name: version(name) for name in PACKAGES}
    measured = {record.measure for record in records}
    trained = trained_with.model_dump(mode="json", exclude={"run_dir", "evaluation"})
    return EvaluationResults(
        run=str(context.run),
        checkpoint=settings.checkpoint,
        config=settings.model_dump(mode="json"),
        run_config_digest=hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest(),
        seed=settings.seed,
        versions={"python": platform.python_version(), **versions},
        data=_data_info(context),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        results=records,
        spectra=context.spectra,
        corruptions=context.corruptions,
        tested=context.tested,
        protocols={name: values for name, values in protocols_of(settings).items() if name in measured},
    )


def _data_info(context: Context) -> DataInfo:
    train = test = classes = 0
    with suppress(UserError):
        train, classes = len(context.train_images), context.classes
    with suppress(UserError):
        test = len(context.test_images)
    left_out = context.source.labelled.left_out
    return DataInfo(
        context.data_name,
        train,
        test,
        classes,
        train_left_out=left_out.get("train", 0),
        test_left_out=left_out.get("test", 0),
    )
