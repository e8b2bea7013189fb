"""The command line: reads what the user typed, and turns every failure into one line and an exit code.

0 done, 1 training failed, 2 bad input, 130 interrupted. What needs torch is imported only when it
is needed, so that bad input is answered at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from launch.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from launch.preflight import Report, preflight
from launch.resume import open_run
from launch.run_dir import read_config
from pipeline.config import Config
from pipeline.config_loading import dump_config, load_config
from pipeline.errors import OnwardError, UserError, nearest
from pipeline.shapes import boundary_shapes
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
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'onward train' wrote.")]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only what went wrong, and where the results are.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say every step, process, link and snapshot.")
    ] = False,
) -> None:
    """Train; everything is written to runs/NAME-DATE-TIME, or to run_dir=FOLDER, where a stopped run goes on."""
    with _failures_in_words():
        verbosity.ask(quiet, verbose)
        outlet.speak_in_spite_of_all()
        settings = load_config(config, overrides or [])
        preflight(settings)
        opened = open_run(settings, config.stem)
        for note in opened.notes:
            verbosity.say(note, important=opened.finished)
        if opened.finished:
            return
        from launch.spawn import run_training

        settings = settings.model_copy(update={"run_dir": str(opened.path)})
        raise typer.Exit(run_training(settings, opened.path, opened.steps))


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check everything that 'train' would, start nothing, and print the resolved configuration and the placement."""
    with _failures_in_words():
        settings = load_config(config, overrides or [])
        report = preflight(settings)
        print(dump_config(settings) + _commented(_placement_table(settings, report)))


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
    """Copy the trained backbone, under torchvision's names, to a file."""
    with _failures_in_words():
        read_config(run)
        source = RunDir(run).backbone
        if not source.is_file():
            raise UserError(f"'{run}' has no trained backbone ('{source}'). Train it to the end first")
        if to.exists():
            raise UserError(f"'{to}' already exists. Give another file, or delete it")
        try:
            shutil.copyfile(source, to)
        except OSError as error:
            raise UserError(
                f"'{to}' cannot be written ({error.strerror}). Give a file in a folder that exists"
            ) from None
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
    """Errors that are meant to be read become one line on stderr; anything else is a bug and stays a traceback."""
    try:
        yield
    except OnwardError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _placement_table(config: Config, report: Report) -> str:
    """Columns: stage, device, units, output shape; then what the run amounts to."""
    shapes = boundary_shapes(config)[1:]
    axes = {5: "[V, B, C, H, W]", 4: "[V, B, N, D]", 3: "[1, B, numbers of all views]"}[len(shapes[-1])]
    rows = [("stage", "device", "units", f"output {axes}")]
    for placement, shape in zip(report.placements, shapes, strict=True):
        units = placement.units[0] if len(placement.units) == 1 else f"{placement.units[0]} to {placement.units[-1]}"
        rows.append((str(placement.stage), ", ".join(placement.devices), units, str(list(shape))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    steps = f"{report.steps_per_epoch} steps an epoch, {report.total_steps} in all"
    return "\n".join([*lines, f"{report.num_images} images in batches of {config.data.batch_size}: {steps}"])


def _commented(text: str) -> str:
    """As YAML comments: what `check` prints is a configuration that `train` reads."""
    return "\n".join(f"# {line}" for line in text.splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends in `SystemExit` with one of the exit codes above."""
    outlet.open_standard_streams()
    app(args=None if arguments is None else list(arguments), prog_name="onward")


if __name__ == "__main__":
    main()
