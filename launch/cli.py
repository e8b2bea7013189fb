"""The command line: reads what the user typed, and turns every failure into one line and an exit code.

What needs torch is imported only when it is needed, so that bad input is answered at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

import onward
from launch.commands.arguments import RunFolder
from launch.commands.bench_app import bench_app
from launch.commands.bisect_app import bisect
from launch.commands.data import data_app
from launch.commands.plan_app import plan
from launch.commands.replay_app import replay
from launch.commands.runs_app import list_folder, targets
from launch.commands.verify_app import verify
from launch.commands.weights import convert, export
from launch.errors import EXIT_FAILED, failures_in_words, print_error
from launch.hosts.launcher import HostsRequest, train_on_hosts
from launch.plan.gpus import GPUS
from launch.prepare.presets import configuration_file
from launch.prepare.run_dir import read_config
from onward import here
from pipeline.errors import UserError, printable
from pipeline.validation.loading import load_for_start
from workers.observing.terminal import safe_stream, verbosity
from workers.run.environment import clean_environment

app = typer.Typer(
    help="Train deep networks as a pipeline in which nothing flows backward.",
    epilog="Exit codes: 0 done, 1 training failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a preset: quickstart.")]
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
GivenRuns = Annotated[list[str], typer.Argument(metavar="RUN", help="Folders of runs; RUN@STEPS is a snapshot.")]


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
        settings, notes = load_for_start(configuration_file(config), overrides or [])
        if hosts is not None:
            flags = [*(["-q"] if quiet else []), *(["-v"] if verbose else []), *(["--force"] if force else [])]
            arguments = [*flags, str(config), *(overrides or [])]
            raise typer.Exit(train_on_hosts(settings, HostsRequest(hosts, python, chdir, arguments)))
        if python is not None or chdir is not None:
            raise UserError("--python and --chdir say where Onward is on other hosts. Give --hosts, too")
        raise typer.Exit(here.train(settings, config.stem, notes, force))


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
        raise typer.Exit(here.resume(run, overrides or [], trust, force))


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
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            found = onward.check(
                config,
                overrides=overrides,
                memory=memory,
                gpu=gpu,
                hosts=hosts,
                headers=headers,
                decode=decode,
                trust=trust,
            )
        for note in found.notes if as_json else ():
            print_error(f"note: {printable(note)}")
        verbosity.say(json.dumps(found.document, indent=2) if as_json else str(found), important=True)


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
        raise typer.Exit(here.evaluate(run, overrides or [], trust))


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
    runs: GivenRuns,
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
    """Compare runs with the first one, side by side; runs that differ only in their seed count as one."""
    with failures_in_words():
        from launch.results.printing import command_console

        compared = onward.compare(*runs, measure=measure or (), markdown=markdown, csv=csv, plot=plot)
        compared.show(command_console())


@app.command()
def select(
    runs: GivenRuns,
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
        from launch.results.printing import command_console

        chosen = onward.select(*runs, by=by, feature=feature, block=block, accuracy=accuracy, csv=csv)
        chosen.show(command_console())


# Last, since --help lists them in this order: who is new looks for train.
app.command("runs")(list_folder)
app.command("targets")(targets)
app.command("plan")(plan)
app.command("verify")(verify)
app.command("replay")(replay)
app.command("bisect")(bisect)
app.command("export")(export)
app.command("convert")(convert)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        verbosity.say(f"onward {onward.__version__}", important=True)
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
