"""The command line: reads what the user typed, and turns every failure into one line and an exit code.

0 done, 1 training failed, 2 bad input, 130 interrupted. What needs torch is imported only when it
is needed, so that bad input is answered at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from launch.checking import checked
from launch.exit_codes import EXIT_FAILED
from launch.measuring import measure_in_a_process
from launch.preflight import preflight
from launch.resume import check_resumable, open_run
from launch.run_dir import claim_run, read_config
from launch.words import tell
from pipeline.config import Config
from pipeline.config_loading import load_config, load_for_start
from pipeline.errors import UserError, nearest
from workers.environment import leave_surroundings
from workers.observing.terminal import outlet, verbosity
from workers.run_files import RunDir

app = typer.Typer(
    help="Train deep networks as a pipeline in which nothing flows backward.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
data_app = typer.Typer(help="Copies of data sets that are quicker to read.", no_args_is_help=True)
app.add_typer(data_app, name="data")
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Laid over the file, such as train.epochs=2 or stages.2.device=cpu."),
]
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Laid over the run's settings: evaluation.KEY=VALUE, device=VALUE."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong, and where the results are.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say every step, process, link and snapshot.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'onward train' wrote.")]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train; everything is written to runs/NAME-DATE-TIME, or to run_dir=FOLDER, where a stopped run goes on."""
    with _failures_in_words():
        verbosity.ask(quiet, verbose)
        settings, notes = load_for_start(config, overrides or [])
        _train(settings, config.stem, notes)


@app.command()
def resume(run: RunFolder, overrides: Overrides = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Go on with a run from its newest snapshot, wherever it lies now."""
    with _failures_in_words():
        verbosity.ask(quiet, verbose)
        check_resumable(run)
        settings = load_config(RunDir(run).config, overrides or [])
        _train(settings.model_copy(update={"run_dir": str(run)}), run.name)


def _train(settings: Config, name: str, notes: Sequence[str] = ()) -> None:
    outlet.expect_no_reader()
    with claim_run(settings, name) as claimed:
        found = preflight(settings, claimed.run.path)
        opened = open_run(settings, claimed.run.path)
        for note in (*notes, *claimed.notes, *found.notes, *opened.notes):
            verbosity.say(note, important=opened.finished)
        if opened.unmeasured:
            raise typer.Exit(measure_in_a_process(read_config(opened.path), RunDir(opened.path)))
        if opened.finished:
            return
        from launch.spawn import run_training

        claimed.keep()
        settings = settings.model_copy(update={"run_dir": str(opened.path)})
        raise typer.Exit(run_training(settings, opened.path, opened.steps, claimed.held))


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check everything that 'train' would, start nothing, and print the resolved configuration and the placement."""
    with _failures_in_words():
        settings, notes = load_for_start(config, overrides or [])
        print(checked(settings, preflight(settings), notes))


@app.command()
def evaluate(run: RunFolder, overrides: EvaluationOverrides = None) -> None:
    """Measure every block of a run; everything that is found is written to RUN/evaluation.json and RUN/evaluation/."""
    with _failures_in_words():
        read_config(run)
        from launch.evaluate import evaluate_run

        raise typer.Exit(evaluate_run(run, overrides or []))


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The safetensors file to write.")],
) -> None:
    """Copy the trained backbone, under torchvision's names, to a file, with what its images must be like."""
    with _failures_in_words():
        from launch.export import export_backbone

        export_backbone(run, to)
        print(to)


@app.command()
def report(
    run: RunFolder,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="The page, if not RUN/report.html; figures beside it.")
    ] = None,
) -> None:
    """Make one page of a run, running or ended: RUN/report.html, and its figures for papers in RUN/report/."""
    with _failures_in_words():
        read_config(run)
        from launch.report import write_report

        for note in write_report(run, to):
            print(note)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN[@STEPS]...", help="Folders that 'onward evaluate' measured, or snapshots."),
    ],
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="MEASURE[/METRIC]", help="Only these, such as linear/quick or quality/lidar; repeatable."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the tables as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write every number, with all digits.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw figures, PNG and SVG.")] = None,
) -> None:
    """Put evaluated runs side by side, the first against the others; runs that differ only in the seed as one."""
    with _failures_in_words():
        from rich.console import Console

        from launch.compare import Outputs, compare_runs

        compare_runs(runs, measure or [], Outputs(markdown, csv, plot), Console())


@app.command()
def select(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders that 'onward evaluate' measured; RUN@STEPS for a snapshot."),
    ],
    by: Annotated[str, typer.Option(metavar="lidar|rankme|alpha|collapse", help="What decides.")] = "lidar",
    feature: Annotated[str, typer.Option(metavar="trunk|expansion|projector", help="Measured where.")] = "trunk",
    block: Annotated[str, typer.Option(metavar="last|K", help="Measured at which block, from 1.")] = "last",
    accuracy: Annotated[
        str | None,
        typer.Option(metavar="MEASURE", help="To compare the measures with; the first linear probe if not given."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the runs, in order, as CSV.")] = None,
) -> None:
    """Order evaluated runs without labels, and say how well every measure tells accuracy, where that is known."""
    with _failures_in_words():
        from rich.console import Console

        from launch.select import Choice, select_runs

        select_runs(runs, Choice(by, feature, block, accuracy), csv, Console())


@bench_app.command("method")
def bench_method(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="What to train, configs/quickstart.yaml if not given."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each variant; they differ in the seed.")] = 3,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the runs and the table go.")] = Path(
        "runs/bench-method"
    ),
) -> None:
    """Untrained, end to end, simultaneous with and without noise, sequential and supervised, on one budget."""
    with _failures_in_words():
        given = arguments or []
        named = bool(given) and "=" not in given[0]
        config = Path(given[0]) if named else Path("configs/quickstart.yaml")
        from rich.console import Console

        from launch.bench import bench_method as compare

        compare(config, given[1:] if named else given, seeds, to, Console())


@data_app.command("pack")
def data_pack(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG_OR_FOLDER", help="Whose data set: a YAML file's, or a folder of classes.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")],
    kind: Annotated[
        str, typer.Option("--format", metavar="jpeg|raw", help="JPEGs again, or pixels, ten times as large.")
    ] = "jpeg",
    short_side: Annotated[int, typer.Option(min=8, help="Longest that the shorter side may be, in pixels.")] = 256,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs.")] = 90,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Threads; one a core if not given.")] = None,
) -> None:
    """Copy a data set with smaller images into a few large files. This changes the data: report it with results."""
    with _failures_in_words():
        if kind not in ("jpeg", "raw"):
            raise UserError(f"--format: '{kind}' is no format of a packed data set. {nearest(kind, ('jpeg', 'raw'))}")
        from rich.console import Console

        from launch.pack import pack
        from pipeline.data.packed import Settings

        settings = Settings(format="jpeg" if kind == "jpeg" else "raw", short_side=short_side, quality=quality)
        pack(source, out, settings, workers or os.cpu_count() or 1, Console())


@data_app.command("verify")
def data_verify(folder: Annotated[Path, typer.Argument(metavar="OUT", help="What 'onward data pack' wrote.")]) -> None:
    """Compare every file of a packed data set with the digest it had when it was written."""
    with _failures_in_words():
        from rich.console import Console

        from launch.pack import verify_packed

        verify_packed(folder, Console())


def _print_version(asked: bool) -> None:
    if asked:
        print(f"onward {importlib.metadata.version('onward')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _failures_in_words() -> Iterator[None]:
    """Whatever ends a command becomes one line on stderr and an exit code; see `launch.words`."""
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(tell(error)) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends in `SystemExit` with one of the exit codes above."""
    leave_surroundings()
    outlet.open_standard_streams()
    outlet.speak_in_spite_of_all()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="onward")
    except SystemExit as end:
        lost = outlet.lost_output()
        if lost is None or end.code:
            raise
        print(f"error: not all could be written to the standard output ({lost.strerror})", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None


if __name__ == "__main__":
    main()
