"""The command line: reads what the user typed, and turns every failure into one line and an exit code.

0 done, 1 training failed, 2 bad input, 130 interrupted. What needs torch is imported only when it
is needed, so that bad input is answered at once.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.data import data_app
from launch.errors import EXIT_FAILED, failures_in_words
from launch.prepare.prepared_run import dry_run, prepare_run
from launch.prepare.resume import check_resumable
from launch.prepare.run_dir import check_own, read_config
from launch.prepare.scan import scan_images
from launch.processes.measuring import finish
from launch.tables.run_table import checked
from pipeline.config import Config
from pipeline.errors import printable
from pipeline.validation.loading import Reading, load_config, load_for_start
from workers.observing.terminal import safe_stream as outlet
from workers.observing.terminal import verbosity
from workers.run.environment import clean_environment
from workers.run.files import RunDir

app = typer.Typer(
    help="Train deep networks as a pipeline in which nothing flows backward.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Laid over the file, such as train.epochs=2 or stages.2.device=cpu."),
]
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Laid over the run's: evaluation.KEY, device, data.root, data.on_error."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong, and where the results are.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say every step, process, link and snapshot.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Call what the configuration names, although it is another user's file.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'onward train' wrote.")]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train; everything is written to runs/NAME-DATE-TIME, or to run_dir=FOLDER, where a stopped run goes on."""
    with failures_in_words():
        verbosity.ask(quiet, verbose)
        settings, notes = load_for_start(config, overrides or [])
        _train(settings, config.stem, notes)


@app.command()
def resume(
    run: RunFolder,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    trust: Trust = False,
) -> None:
    """Go on with a run from its newest snapshot, wherever it lies now."""
    with failures_in_words():
        verbosity.ask(quiet, verbose)
        check_resumable(run)
        check_own(run)
        settings = load_config(RunDir(run).config, overrides or [], Reading(trusted=trust, trackers=True, run=run))
        _train(settings.model_copy(update={"run_dir": str(run)}), run.name)


def _train(settings: Config, name: str, notes: Sequence[str] = ()) -> None:
    outlet.expect_no_reader()
    with prepare_run(settings, name, notes) as prepared:
        if prepared.finished:
            raise typer.Exit(finish(prepared))
        from launch.processes.local import run_training

        raise typer.Exit(run_training(prepared))


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    headers: Annotated[bool, typer.Option("--headers", help="Read every header; list all broken files.")] = False,
    whole: Annotated[bool, typer.Option("--all", help="Decode every image; list all broken files.")] = False,
    trust: Trust = False,
) -> None:
    """Check everything that 'train' would, start nothing, and print the resolved configuration and the placement."""
    with failures_in_words():
        settings, notes = load_for_start(config, overrides or [], Reading(trusted=trust))
        plan = dry_run(settings, lambda splits: scan_images(splits, headers, whole))
        print(checked(settings, plan, notes))


@app.command()
def evaluate(run: RunFolder, overrides: EvaluationOverrides = None, trust: Trust = False) -> None:
    """Measure every block of a run; everything that is found is written to RUN/evaluation.json and RUN/evaluation/."""
    with failures_in_words():
        read_config(run)
        from launch.commands.evaluate import evaluate_run

        raise typer.Exit(evaluate_run(run, overrides or [], trusted=trust))


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The safetensors file to write.")],
) -> None:
    """Copy the trained backbone, under torchvision's names, to a file, with what its images must be like."""
    with failures_in_words():
        from launch.commands.export import export_backbone

        export_backbone(run, to)
        print(printable(str(to)))


@app.command()
def report(
    run: RunFolder,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="The page, if not RUN/report.html; figures beside it.")
    ] = None,
) -> None:
    """Make one page of a run, running or ended: RUN/report.html, and its figures for papers in RUN/report/."""
    with failures_in_words():
        read_config(run)
        from launch.commands.report import write_report

        for note in write_report(run, to):
            print(printable(note))


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
    with failures_in_words():
        from launch.commands.compare import Outputs, compare_runs
        from workers.observing.terminal.console import PrintableConsole

        compare_runs(runs, measure or [], Outputs(markdown, csv, plot), PrintableConsole())


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
    with failures_in_words():
        from launch.commands.select import Choice, select_runs
        from workers.observing.terminal.console import PrintableConsole

        select_runs(runs, Choice(by, feature, block, accuracy), csv, PrintableConsole())


@bench_app.command("method")
def bench_method(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="What to train, configs/quickstart.yaml if not given."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each variant; they differ in the seed.")] = 3,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where runs and table go.")] = Path("runs/bench-method"),
) -> None:
    """Untrained, end to end, simultaneous with and without noise, sequential and supervised, on one budget."""
    with failures_in_words():
        given = arguments or []
        named = bool(given) and "=" not in given[0]
        config = Path(given[0]) if named else Path("configs/quickstart.yaml")
        from launch.commands.bench import bench_method as compare
        from workers.observing.terminal.console import PrintableConsole

        compare(config, given[1:] if named else given, seeds, to, PrintableConsole())


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends in `SystemExit` with one of the exit codes of `launch.errors`."""
    clean_environment()
    outlet.open_standard_streams()
    outlet.survive_lost_output(told_later=True)
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
