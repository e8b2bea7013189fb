"""`onward bench method`: training methods compared on one budget and several seeds.

Every variant is a run of its own, started as a user would start it, so its numbers are those of `report.json`.
Runs that are there already are read and not repeated, so an interrupted comparison continues where it stopped.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.rule import Rule

from launch.prepare.config_differences import deciding_differences
from launch.prepare.run_dir import read_config
from launch.results.grid import Grid
from launch.results.printing import print_grid
from pipeline.config import Config
from pipeline.errors import TrainingError, UserError
from pipeline.validation.loading import load_config
from workers.observing.terminal.console import Console
from workers.run.cores import core_count
from workers.run.environment import interpreter
from workers.run.files import TO_BE_MEASURED, RunDir, read_object, write_json

END_TO_END = "end to end"


@dataclass(frozen=True)
class Variant:
    """One way to train the same network, as overrides of the common configuration."""

    name: str
    overrides: tuple[str, ...]


def variants(classes: int, noise: Sequence[str]) -> list[Variant]:
    """All that are compared; `noise` are the overrides that switch the configured noise on.

    Every block gets the same number of updates on batches of the same size. So `sequential` reads the data once for
    each block, and end to end, which is one process, gets all the cores.
    """
    silent = "noise.kind=none"
    cores = core_count()
    return [
        Variant(END_TO_END, ("mode=end_to_end", f"threads={cores}", silent)),
        Variant("simultaneous", ("mode=simultaneous", silent)),
        Variant("simultaneous + noise", ("mode=simultaneous", *noise)),
        Variant("sequential", ("mode=sequential", silent)),
        Variant(
            "supervised blockwise",
            ("mode=simultaneous", silent, "objective.kind=supervised", f"head.projector=[{classes}]",
             "head.projector_bias=true"),
        ),
    ]  # fmt: skip


def bench_method(config_file: Path, overrides: Sequence[str], seeds: int, folder: Path, console: Console) -> None:
    """Train every variant with every seed into `folder`, and print and write the table.

    Args:
        config_file, overrides: the common configuration; its noise is used by the variant with noise.
        seeds: how many, beginning with the configured one.
        folder: gets one run directory per variant and seed, and `method.json`.
        console: for the tables.

    Raises:
        UserError: the configuration is wrong, or the folder holds runs of another one.
        TrainingError: a run failed.
    """
    config = load_config(config_file, overrides)
    _check(config, seeds)
    from pipeline.data.sets.datasets import Splits, count_classes

    noise = [f"noise.{key}={json.dumps(value)}" for key, value in config.noise.model_dump(mode="json").items()]
    results: dict[str, list[dict[str, Any]]] = {}
    chosen = variants(count_classes(Splits(config.data)), noise)
    for seed in range(config.seed, config.seed + seeds):
        for variant in chosen:
            run = RunDir(folder / f"{variant.name.replace(' ', '_')}-seed{seed}")
            all_overrides = [*overrides, *variant.overrides, f"seed={seed}"]
            report = _report(run, config_file, all_overrides, console)
            results.setdefault(variant.name, []).append(report)
    rows = summarise(results)
    write_json(folder / "method.json", {"config": str(config_file), "overrides": list(overrides), "rows": rows})
    for grid in tables(rows, seeds):
        print_grid(console, grid)


def _check(config: Config, seeds: int) -> None:
    if seeds < 1:
        raise UserError(f"--seeds: got {seeds}. Give 1 or more; the spread needs 2, and 3 is usual")
    if config.num_stages < 2:
        raise UserError("model.cuts: the network is one block, and there is nothing to compare. Cut it")
    if not config.evaluation.linear_probe:
        raise UserError("evaluation.linear_probe: the comparison is of linear probes. Set it to true")
    if config.noise.kind == "none" or config.noise.std == 0:
        raise UserError("noise: one of the variants trains with noise, and none is configured. Give noise.kind and std")


def _report(run: RunDir, config_file: Path, overrides: list[str], console: Console) -> dict[str, Any]:
    """The report of one run, which is trained now if it has not been trained yet."""
    report = _finished(run, load_config(config_file, [*overrides, f"run_dir={run.path}"]))
    if report is None:
        console.show(Rule(run.path.name))
        command = interpreter("launch.cli", "train", str(config_file), *overrides, f"run_dir={run.path}")
        code = subprocess.run(command, check=False).returncode
        if code:
            raise TrainingError(f"the run in '{run.path}' ended with exit code {code}; what was finished is kept")
        report = _report_of(run)
    if "trained" not in report:
        raise UserError(f"'{run.report}' has no linear probes. The data set needs a test split")
    return report


def _finished(run: RunDir, config: Config) -> dict[str, Any] | None:
    if not run.path.exists():
        return None
    if deciding_differences(read_config(run.path), config):
        raise UserError(f"'{run.path}' holds a run with another configuration. Give another --to folder, or delete it")
    if not run.report.is_file():  # it was stopped, and is continued
        return None
    report = _report_of(run)
    return None if TO_BE_MEASURED in report else report


def _report_of(run: RunDir) -> dict[str, Any]:
    try:
        report = read_object(run.report)
    except OSError as error:
        raise UserError(f"'{run.report}' cannot be read ({error.strerror}). Train the run again") from None
    if report is None:
        raise UserError(f"'{run.report}' is no report of a run. Train the run again")
    return report


def summarise(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds, for each variant: accuracies in percent, block by block, and images/s."""
    # Every run has measured the same untrained network, but in end-to-end training only the last block has a head.
    measured = next((reports for name, reports in results.items() if name != END_TO_END), next(iter(results.values())))
    rows = [_row("untrained", measured, "untrained")]
    rows += [_row(name, reports, "trained") for name, reports in results.items()]
    return rows


def _row(name: str, reports: list[dict[str, Any]], which: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name}
    for feature in ("trunk", "expansion"):
        per_block = zip(*([block[feature] for block in report[which]] for report in reports), strict=True)
        row[feature] = [_mean_and_spread([v and 100 * v for v in values]) for values in per_block]
    trained = which == "trained"
    rates = [report["images_per_second"] if trained else None for report in reports]
    row["images_per_second"] = _mean_and_spread(rates)
    row["seconds"] = _mean_and_spread(
        [report["images"] / rate if rate else None for report, rate in zip(reports, rates, strict=True)]
    )
    return row


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    """Mean and standard deviation (None for one value); None if a value is missing."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return statistics.mean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def tables(rows: list[dict[str, Any]], seeds: int) -> list[Grid]:
    """The tables that the command prints: accuracies on the trunk, on the expansion feature, and the cost."""
    spread = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    blocks = [(f"block {block}",) for block in range(1, len(rows[0]["trunk"]) + 1)]
    grids = []
    for feature in ("trunk", "expansion"):
        cells = [(row["name"], *(_cell(value, 1) for value in row[feature])) for row in rows]
        title = f"linear probe on the {feature}, % ({spread})"
        grids.append(Grid(title, (("trained",), *blocks), tuple(cells)))
    trained = [row for row in rows if row["seconds"] is not None]
    cost = [(row["name"], _cell(row["images_per_second"], 0), _cell(row["seconds"], 0)) for row in trained]
    head = (("trained",), ("images/s",), ("seconds of", "training"))
    return [*grids, Grid(f"cost ({spread})", head, tuple(cost))]


def _cell(value: tuple[float, float | None] | None, digits: int) -> str:
    """A mean and its spread, which is None for a single run."""
    if value is None:
        return "-"
    return f"{value[0]:.{digits}f}" + ("" if value[1] is None else f" ± {value[1]:.{digits}f}")
