"""The comparison of methods: what is compared, that it goes on where it stopped, and what the table says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from rich.console import Console

from launch.commands.bench import bench_method, summarise, tables, variants
from launch.prepare.run_dir import read_config
from launch.results.printing import print_grid
from pipeline.errors import UserError
from tests.runs import TINY, Process
from tests.workers.evaluating.evaluating_runs import image_folder
from workers.run.files import RunDir

SMALL = ["data.name=image_folder", "data.batch_size=8", "data.image_size=16", "train.epochs=2", "train.max_steps=2"]
SMALL += ["model.cuts=[layer2]", "metrics.enabled=false", "runtime=serial", "evaluation.linear_probe=true"]
SMALL += ["noise.kind=all"]
RATE = "images_per_second"
MEAN_RATE = pytest.approx((20.0, 14.142135), abs=1e-5)


def block(trunk: float, expansion: float | None) -> dict[str, float | None]:
    return {"trunk": trunk, "expansion": expansion}


def test_the_table_has_mean_and_spread_of_every_block() -> None:
    reports = [
        {"untrained": [block(0.5, 0.4)], "trained": [block(trunk, None)], "images": 100, RATE: rate}
        for trunk, rate in [(0.6, 10.0), (0.8, 30.0)]
    ]
    untrained, trained = summarise({"end to end": reports})
    assert untrained["trunk"] == [pytest.approx((50.0, 0.0))]
    assert untrained["seconds"] is None
    assert trained["trunk"] == [pytest.approx((70.0, 14.142135), abs=1e-5)]
    assert trained["expansion"] == [None]
    assert trained[RATE] == MEAN_RATE
    console = Console(width=80, record=True)
    for grid in tables([untrained, trained], 2):
        print_grid(console, grid)
    text = console.export_text()
    assert "70.0 ± 14.1" in text
    assert "20 ± 14" in text


@pytest.mark.parametrize(
    ("seeds", "spread"), [(1, "one seed"), (2, "mean ± standard deviation of 2 seeds"), (3, "deviation of 3 seeds")]
)
def test_every_table_says_over_how_many_seeds_it_is(seeds: int, spread: str) -> None:
    report = {"untrained": [block(0.5, 0.4)], "trained": [block(0.6, 0.5)], "images": 100, RATE: 10.0}
    titles = [grid.title for grid in tables(summarise({"end to end": [report] * seeds}), seeds)]
    assert len(titles) == 3
    assert all(title.endswith(f"{spread})") for title in titles)


def test_every_variant_differs_from_the_others_in_its_method_alone() -> None:
    found = {variant.name: variant.overrides for variant in variants(10, ["noise.kind=all", "noise.std=0.25"])}
    assert list(found) == ["end to end", "simultaneous", "simultaneous + noise", "sequential", "supervised blockwise"]
    assert found["simultaneous + noise"] == ("mode=simultaneous", "noise.kind=all", "noise.std=0.25")
    assert "head.projector=[10]" in found["supervised blockwise"]


@pytest.mark.processes
def test_the_comparison_runs_and_a_second_call_only_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], check: bool) -> CompletedProcess[bytes]:
        """In a fork, not in a new interpreter: that saves seconds each."""
        assert command[:4] == [sys.executable, "-P", "-m", "launch.cli"]
        return CompletedProcess(command, Process(command[4:], forked=True).wait())

    monkeypatch.setattr(subprocess, "run", run)
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    overrides = [*SMALL, f"data.root={image_folder(tmp_path / 'images')}"]
    folder = tmp_path / "bench"
    bench_method(config, overrides, 1, folder, Console(quiet=True))
    runs = {each.name: RunDir(folder / f"{each.name.replace(' ', '_')}-seed1") for each in variants(2, [])}
    assert [(c.mode, c.noise.kind, c.objective.kind) for c in (read_config(run.path) for run in runs.values())] == [
        ("end_to_end", "none", "barlow_twins"), ("simultaneous", "none", "barlow_twins"),
        ("simultaneous", "all", "barlow_twins"), ("sequential", "none", "barlow_twins"),
        ("simultaneous", "none", "supervised"),
    ]  # fmt: skip
    reports = {name: [json.loads(run.report.read_text())] for name, run in runs.items()}
    assert all(0 <= block["trunk"] <= 1 for (report,) in reports.values() for block in report["trained"])
    rows = json.loads((folder / "method.json").read_text())["rows"]
    assert rows == json.loads(json.dumps(summarise(reports)))
    assert [row["name"] for row in rows] == ["untrained", *runs]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a run was trained again"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("report.json")}
    bench_method(config, overrides, 1, folder, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("report.json")} == before
    with pytest.raises(UserError, match=r"another configuration\. Give another --to folder"):
        bench_method(config, [*overrides, "optimizer.lr=0.3"], 1, folder, Console(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model.cuts=[]"], r"^model\.cuts: the network is one block"),
        (["--seeds", "0"], r"^--seeds: got 0\. Give 1 or more"),
        (["noise.kind=none"], r"^noise: one of the variants trains with noise"),
        (["evaluation.linear_probe=false"], r"^evaluation\.linear_probe: the comparison is of linear probes"),
        (["optimizer.lr=-1"], r"^optimizer\.lr: got -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str],
    expected: str,
    folder: Path,
    onward: Callable[..., Any],
    assert_refused: Callable[[Any, str], None],
    fake_training: list[Path],
) -> None:
    assert_refused(onward("bench", "method", "config.yaml", *arguments), expected)
    assert fake_training == []
