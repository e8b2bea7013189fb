"""`check`, `evaluate`, `compare`, `select`, `verify` and `replay`: what the commands of these names find, as values.

The command line calls them and prints what they return; `str()` of it is the same text, or Markdown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.commands.check import Checked, check_memory, check_run
from launch.commands.compare import Comparison, Outputs, compare_runs
from launch.commands.select import Choice, Selection, select_runs
from launch.hosts.start_plan import start_plan
from launch.plan.gpus import parse_gpu
from launch.prepare.run_dir import read_config
from onward.config import read_checked
from onward.overrides import as_text
from onward.run import Run
from onward.training import do, shown
from pipeline import config as settings
from pipeline.validation.loading import LoadOptions, load_config
from workers.control.start_messages import CommandStart
from workers.run.files import RunDir

if TYPE_CHECKING:
    from launch.commands.replay import Replay
    from launch.verifying.bisection import Bisection
    from launch.verifying.verification import Verification
    from pipeline.evaluation.document import EvaluationResults

EVALUATION = "evaluation."
OF_THE_RUN = ("device", "data.root", "data.on_error")
"""Keys of a run that an evaluation takes, beside its own section."""
Name = str | os.PathLike[str] | Run
"""A run: its directory, `RUN@STEPS` for a snapshot, or a run that has ended."""


def check(
    config: settings.Config | str | os.PathLike[str],
    *,
    overrides: Mapping[str, object] | Sequence[str] | None = None,
    memory: bool = False,
    gpu: str | None = None,
    hosts: str | None = None,
    headers: bool = False,
    decode: bool = False,
    trust: bool = True,
    **keywords: object,
) -> Checked:
    """Make every check of `train` and start nothing.

    Args:
        config: the path of a YAML file, the name of a preset, or an `onward.Config`.
        overrides: values by dotted key, or `KEY=VALUE` as the command line has them.
        memory: only what the run needs: memory, links, disk. Needs no data.
        gpu: whether it fits such GPUs: `h100`, `24GiB`, `4xh100`.
        hosts: where each process runs on so many or on these hosts.
        headers, decode: also read every header, or decode every image; prints which are broken.
        trust: import and call what the configuration names, although it is another user's file.
        keywords: keys with two underscores for every dot: `train__epochs=2`.

    Returns:
        `config`, `plan` (steps, images, placements), `account` (memory), `devices`, `notes`; `document` has all of it
        as JSON has it, and `str()` is what the command prints.

    Raises:
        ConfigError, UserError: what `train` would refuse, but for what does not fit its devices, which is said.
    """
    texts = list(overrides) if isinstance(overrides, Sequence) else as_text(overrides, {})
    texts += as_text(None, keywords)
    read, notes = read_checked(config, texts, trust)
    gpus = None if gpu is None else parse_gpu(gpu)
    start = None if hosts is None else start_plan(read, hosts, [str(config), *texts])
    if memory:
        return check_memory(read, notes, gpus, start)
    return check_run(read, notes, gpus, headers, decode, start)


def evaluate(
    run: Name,
    *,
    overrides: Mapping[str, object] | None = None,
    progress: bool | None = False,
    trust: bool = False,
    keywords: Mapping[str, object] | None = None,
    **more: object,
) -> EvaluationResults:
    """Measure every block of a run, in a process of its own; writes what `onward evaluate` writes.

    Args:
        run: its directory, or a run that has ended.
        overrides: values by dotted key, of `evaluation` (the section may be left out), `device`, `data.root` and
            `data.on_error`: `{"mlp": True, "checkpoint": 195}`.
        progress: print what the command prints.
        trust: as `--trust`.
        keywords, more: the same with two underscores for every dot: `mlp=True`, `knn__k=[20]`.

    Raises:
        ConfigError, UserError: there is no run, no weights, or nothing that can be measured.
        TrainingError: the process that measures was killed.
    """
    from pipeline.evaluation.document import EvaluationResults

    path, texts = (
        (run.path if isinstance(run, Run) else Path(run)),
        evaluation_texts(overrides, {**(keywords or {}), **more}),
    )
    read_config(path)
    load_config(RunDir(path).config, texts, LoadOptions(build=False, run=path))  # a misspelt key costs no process
    start = CommandStart(command="evaluate", parent=os.getpid(), run=str(path), overrides=texts, trusted=trust)
    do(start, shown(progress, wait=True))
    return EvaluationResults.read(path / "evaluation.json", path)


def compare(
    *runs: Name,
    measure: Sequence[str] = (),
    markdown: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare evaluated runs with the first one; runs that differ only in their seed count as one.

    Args:
        runs: two or more.
        measure: only these, such as `linear/quick` or `quality/lidar`.
        markdown, csv: files to write as well.
        plot: folder for figures, as PNG and SVG.

    Returns:
        `groups`, `rows` with every number, and `tables`; `str()` is Markdown.

    Raises:
        UserError: no such run, no evaluation, a damaged one, no such measure, nothing in common, or a file that
            cannot be written.
    """
    outputs = Outputs(*(None if path is None else Path(path) for path in (markdown, csv, plot)))
    return compare_runs(_names(runs), measure, outputs)


def select(
    *runs: Name,
    by: str = "lidar",
    feature: str = "trunk",
    block: str | int = "last",
    accuracy: str | None = None,
    csv: str | os.PathLike[str] | None = None,
) -> Selection:
    """Order evaluated runs by a measure that needs no labels; `best` is the first.

    Args:
        runs: two or more.
        by: `lidar`, `rankme`, `alpha` or `collapse`.
        feature: `trunk`, `expansion` or `projector`.
        block: a number from 1, or `last`.
        accuracy: to compare the measures with, such as `linear/quick`; of the first linear probe if not given.
        csv: file to write as well.

    Raises:
        UserError: no such run, no evaluation, a damaged one, or one without the numbers that are asked for.
    """
    choice = Choice(by, feature, str(block), accuracy)
    return select_runs(_names(runs), choice, None if csv is None else Path(csv))


def verify(
    run: Name,
    *,
    first: int | None = None,
    last: int | None = None,
    stage: int | None = None,
    runtime: Literal["serial", "pipelined"] | None = None,
    close: float | None = None,
    whole: bool = False,
    overrides: Mapping[str, object] | None = None,
    trust: bool = False,
    **keywords: object,
) -> Verification:
    """Compute steps of a run again from a snapshot, in a process of its own, and compare their bits.

    Args:
        run: its directory, or a run that has ended.
        first, last: numbers of steps that are done, from which and to which; by default the last interval from one
            snapshot to the next, or to the end.
        stage: compare only this one, counted from 1.
        runtime: how it is computed; by default in one process, unless a stage had replicas.
        close: compare no bits: loss and norms of the first step behind each snapshot may differ by such a share.
        whole: as `--all`: from the beginning to the last step that can be compared.
        overrides: where and how it is computed here, such as `device` and `data.root`.
        trust: as `--trust`.
        keywords: keys with two underscores for every dot: `data__root="/data"`.

    Returns:
        `equal`; `difference`, the first step and stage that differ and in what; `tensors`, by how much;
        `circumstances`, what may give other bits by right. `str()` is what the command prints.

    Raises:
        ConfigError, UserError: there is nothing to begin with or to compare, or it cannot be computed here.
        TrainingError: computing it again failed.
    """
    from launch.commands.verify import Question, verify_run

    path = run.path if isinstance(run, Run) else Path(run)
    question = Question(first, last, stage, runtime, close, whole=whole)
    return verify_run(path, question, as_text(overrides, keywords), trust)


def bisect(one: Name, other: Name, *, recompute: bool = False, trust: bool = False) -> Bisection:
    """Find the first step and stage where two runs part, by what both have recorded; both stay as they are.

    Args:
        one, other: their directories, or runs that have ended.
        recompute: compute the steps between the last place that is equal and the first that differs again, for both.
        trust: as `--trust`.

    Returns:
        `parted`; `equal`, the steps until which they are equal; `difference`, the first digest that differs; `why`,
        what differs between the two. `str()` is what the command prints.

    Raises:
        ConfigError, UserError: they have other stages, or nothing that both have recorded.
        TrainingError: computing them again failed.
    """
    from launch.commands.bisect import bisect_runs

    first, second = (Path(name) for name in _names((one, other)))
    return bisect_runs(first, second, recompute, trust)


def replay(
    run: Name,
    *,
    stage: int,
    step: int,
    first: int | None = None,
    dump: str | os.PathLike[str] | None = None,
    images: int | None = None,
    overrides: Mapping[str, object] | None = None,
    trust: bool = False,
    **keywords: object,
) -> Replay:
    """Compute one step of one stage of a run again, in this process, and watch it; the run stays as it is.

    Args:
        run: its directory, or a run that has ended.
        stage: from 1.
        step: counted from 0, as in `metrics.jsonl` and in messages.
        first: begin with the snapshot after so many steps or fewer; by default the last one before the step.
        dump: folder for tensors, numbers and pictures of the images.
        images: how many pictures, those that matter most; 32 if not given.
        overrides: where and how it is computed here, such as `device` and `data.root`.
        trust: as `--trust`.
        keywords: keys with two underscores for every dot: `data__root="/data"`.

    Returns:
        `found`: loss, norms by module, images in their order, and where something was not finite first; `equal`,
        whether its bits are those that the run recorded. `str()` is what the command prints.

    Raises:
        ConfigError, UserError: there is no such step or stage, no snapshot before it, or the data have changed.
    """
    from launch.commands.replay import replay_run

    path, folder = run.path if isinstance(run, Run) else Path(run), None if dump is None else Path(dump)
    texts = as_text(overrides, keywords)
    return replay_run(path, stage, step, first=first, dump=folder, images=images, overrides=texts, trusted=trust)


def _names(runs: Sequence[Name]) -> list[str]:
    return [str(run.path) if isinstance(run, Run) else os.fspath(run) for run in runs]


def evaluation_texts(overrides: Mapping[str, object] | None, keywords: Mapping[str, object]) -> list[str]:
    """`KEY=VALUE` for `onward evaluate`: `mlp=True` is `evaluation.mlp=true`; raises `ConfigError`."""
    texts = as_text(overrides, keywords)
    own = [text.partition("=")[0] for text in texts]
    return [
        text if k in OF_THE_RUN or k.startswith(EVALUATION) else EVALUATION + text
        for k, text in zip(own, texts, strict=True)
    ]
