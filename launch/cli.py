"""The command line: reads what the user typed, and turns every failure into one line and an exit code.

What needs torch is imported only when it is needed, so that bad input is answered at once.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.bench_app import bench_app
from launch.commands.check import check_memory, check_run
from launch.commands.data import data_app
from launch.commands.weights import convert, export
from launch.errors import EXIT_FAILED, failures_in_words, print_error
from launch.hosts.launcher import HostsRequest, train_on_hosts
from launch.hosts.start_plan import start_plan
from launch.plan.fitting import fit
from launch.plan.gpus import GPUS, parse_gpu
from launch.prepare.prepared_run import prepare_run
from launch.prepare.resume import check_resumable
from launch.prepare.run_dir import check_own, read_config
from launch.processes.measuring import finish
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.loading import LoadOptions, load_config, load_for_start
from workers.observing.terminal import safe_stream, verbosity
from workers.run.environment import clean_environment
from workers.run.files import RunDir

app = typer.Typer(
    help="Train deep networks as a pipeline in which nothing flows backward.",
    epilog="Exit codes: 0 done, 1 training failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.command("export")(export)
app.command("convert")(convert)
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Override keys, for example train.epochs=2 or stages.2.device=cpu."),
]
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Override keys of the run: evaluation.KEY, device, data.root, data.on_error."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, and where the results are.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print every step, process, link and snapshot.")]
Force = Annotated[bool, typer.Option("--force", help="Start it although it needs more memory than its devices have.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import and call what the configuration names, although it is another user's file."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that 'onward train' wrote.")]
EvaluatedRuns = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Folders of runs that 'onward evaluate' measured; RUN@STEPS is a snapshot."),
]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    force: Force = False,
    hosts: Annotated[
        str | None,
        typer.Option(metavar="HOST[:N],...", help="Train on these hosts, over ssh; N processes at most on one."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --hosts: Python there, from the checkout; else as here.")
    ] = None,
    chdir: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --hosts: the checkout there; else the folder you are in.")
    ] = None,
) -> None:
    """Train a network. Results go to runs/NAME-DATE-TIME, or to run_dir=FOLDER; a run stopped there is continued."""
    with failures_in_words():
        verbosity.ask(quiet, verbose)
        settings, notes = load_for_start(config, overrides or [])
        if hosts is not None:
            flags = [*(["-q"] if quiet else []), *(["-v"] if verbose else []), *(["--force"] if force else [])]
            arguments = [*flags, str(config), *(overrides or [])]
            raise typer.Exit(train_on_hosts(settings, HostsRequest(hosts, python, chdir, arguments)))
        if python is not None or chdir is not None:
            raise UserError("--python and --chdir say where Onward is on other hosts. Give --hosts, too")
        _train(settings, config.stem, force, notes)


@app.command()
def resume(
    run: RunFolder,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    trust: Trust = False,
    force: Force = False,
) -> None:
    """Continue a run from its newest snapshot; its folder may have moved."""
    with failures_in_words():
        verbosity.ask(quiet, verbose)
        check_resumable(run)
        check_own(run)  # again once the run is claimed: another process may have it now
        settings = load_config(RunDir(run).config, overrides or [], LoadOptions(trusted=trust, trackers=True, run=run))
        _train(settings.model_copy(update={"run_dir": str(run)}), run.name, force)


def _train(settings: Config, name: str, force: bool, notes: Sequence[str] = ()) -> None:
    safe_stream.expect_no_reader()
    with prepare_run(settings, name, partial(fit, force=force), notes) as prepared:
        if prepared.finished:
            raise typer.Exit(finish(prepared))
        from launch.processes.local import run_training

        raise typer.Exit(run_training(prepared))


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    headers: Annotated[bool, typer.Option("--headers", help="Also read every header; list broken files.")] = False,
    decode: Annotated[bool, typer.Option("--all", help="Also decode every image; list broken files.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Print only what the run needs: memory, links, disk. Needs no data.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME|SIZE", help=f"Say whether it fits such GPUs: {', '.join(GPUS)}, 24GiB, 4xh100."),
    ] = None,
    hosts: Annotated[
        str | None, typer.Option(metavar="N|HOST[:N],...", help="Print where each process runs, and the commands.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as one JSON document.")] = False,
    trust: Trust = False,
) -> None:
    """Make every check of 'train' and start nothing; print the whole configuration, and what the run needs."""
    with failures_in_words():
        settings, notes = load_for_start(config, overrides or [], LoadOptions(trusted=trust))
        gpus = None if gpu is None else parse_gpu(gpu)
        start = None if hosts is None else start_plan(settings, hosts, [str(config), *(overrides or [])])
        if memory:
            found = check_memory(settings, notes, gpus, as_json, start)
        else:
            found = check_run(settings, notes, gpus, headers, decode, as_json, start)
        verbosity.say(found, important=True)


@app.command()
def doctor(
    run_dir: Annotated[
        Path, typer.Option("--run-dir", metavar="FOLDER", help="Where runs are kept, or will be.")
    ] = Path("runs"),
    listen: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65535, help="Wait for another host; 0 takes any port.")
    ] = None,
    with_host: Annotated[
        str | None, typer.Option("--with", metavar="HOST:PORT", help="Compare with a host that waits.")
    ] = None,
) -> None:
    """Look at this host, and at the way to another: one page, each line right or with what to do."""
    with failures_in_words():
        from launch.commands.doctor import examine

        raise typer.Exit(EXIT_FAILED if examine(run_dir, listen, with_host) else 0)


@app.command()
def evaluate(run: RunFolder, overrides: EvaluationOverrides = None, trust: Trust = False) -> None:
    """Measure every block of a run; write RUN/evaluation.json, and tables and figures to RUN/evaluation/."""
    with failures_in_words():
        read_config(run)
        from launch.commands.evaluate import evaluate_run

        raise typer.Exit(evaluate_run(run, overrides or [], trusted=trust))


@app.command()
def report(
    run: RunFolder,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write the page here instead, and the figures beside it."),
    ] = None,
) -> None:
    """Write one page about a run, running or ended: RUN/report.html, and its figures for papers to RUN/report/."""
    with failures_in_words():
        read_config(run)
        from launch.commands.report import write_report

        for note in write_report(run, to):
            verbosity.say(note, important=True)


@app.command()
def compare(
    runs: EvaluatedRuns,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE[/METRIC]", help="Show only this, such as linear/quick or quality/lidar; repeatable."
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the tables as Markdown.")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write every number, with all digits, as CSV.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw figures, as PNG and SVG.")] = None,
) -> None:
    """Compare evaluated runs with the first one, side by side; runs that differ only in their seed count as one."""
    with failures_in_words():
        from launch.commands.compare import Outputs, compare_runs
        from launch.results.printing import command_console

        compare_runs(runs, measure or [], Outputs(markdown, csv, plot), command_console())


@app.command()
def select(
    runs: EvaluatedRuns,
    by: Annotated[
        str, typer.Option(metavar="lidar|rankme|alpha|collapse", help="The measure that decides the order.")
    ] = "lidar",
    feature: Annotated[
        str, typer.Option(metavar="trunk|expansion|projector", help="The feature it was measured on.")
    ] = "trunk",
    block: Annotated[
        str, typer.Option(metavar="last|K", help="The block it was measured at, counted from 1.")
    ] = "last",
    accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE", help="The accuracy to compare measures with; by default of the first linear probe."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the ordered runs as CSV.")] = None,
) -> None:
    """Order evaluated runs by a measure that needs no labels; show how well such measures agree with accuracy."""
    with failures_in_words():
        from launch.commands.select import Choice, select_runs
        from launch.results.printing import command_console

        select_runs(runs, Choice(by, feature, block, accuracy), csv, command_console())


def _print_version(wanted: bool) -> None:
    if wanted:
        verbosity.say(f"onward {importlib.metadata.version('onward')}", important=True)
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
    safe_stream.open_standard_streams()
    safe_stream.survive_lost_output(told_later=True)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="onward")
    except SystemExit as end:
        lost = safe_stream.lost_output()
        if lost is None or end.code:
            raise
        print_error(f"error: not all could be written to the standard output ({lost.strerror})")
        raise SystemExit(EXIT_FAILED) from None


if __name__ == "__main__":
    main()
