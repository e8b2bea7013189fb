"""`onward runs`: the state of every run, what it came to, and what is no run, from a few small files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.prepare.config_differences import differing_keys
from launch.prepare.run_lock import claim
from launch.results.listed_run import BestAccuracy, read_listed
from pipeline.evaluation.document import Record
from tests.launch.commands.evaluations import DATA, document, write_run
from tests.launch.pages.reported import line
from tests.runs import ROOT
from workers.run.files import RunDir, write_json

Onward = Callable[..., Any]


def trained(folder: Path, *overrides: str, steps: int = 4, total: int = 8, **report: Any) -> RunDir:
    """A run that has trained so many steps; ended if there is anything to report."""
    run = RunDir(write_run(folder, None, *overrides))
    run.metrics.write_text("".join(json.dumps(line(step)) + "\n" for step in range(steps)))
    write_json(run.coordinator, {"stages": 4, "total_steps": total, "steps_per_epoch": 4})
    if report:
        write_json(run.report, report)
    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder above: one that is done, one that failed, one that was killed, and what is no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    folder = tmp_path / "runs"
    probes = {"trained": [{"trunk": 0.5, "expansion": 0.61}, {"trunk": 0.75, "expansion": None}]}
    trained(folder / "done", "optimizer.lr=0.2", steps=8, images_per_second=200.0, seconds=75.0, **probes)
    write_json(trained(folder / "failed", "optimizer.lr=0.4").failure, {"kind": "raised", "message": "stage 2 failed"})
    write_json(trained(folder / "asked", "seed=9").failure, {"kind": "interrupted", "message": "as it was asked"})
    trained(folder / "killed", "optimizer.lr=0.3", "metrics.port=9", steps=2)
    (folder / "notes").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "todo.txt").write_text("")
    (folder / "apart").mkdir()
    (folder / "apart" / "elsewhere.json").write_text("{}")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.yaml").write_text("a: [1")
    (folder / "linked").mkdir()
    (folder / "linked" / "config.yaml").symlink_to(folder / "done" / "config.yaml")
    return folder


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the first table, by name."""
    rows = [[cell.strip() for cell in row.strip("│").split("│")] for row in text.splitlines() if row.startswith("│")]
    return {row[0]: row[1:] for row in reversed(rows)}


def test_every_run_has_a_line_and_so_has_what_is_none(runs: Path, onward: Onward) -> None:
    with claim(runs / "killed"):
        outcome = onward("runs", "runs")
    assert (outcome.code, outcome.err) == (0, "")
    found = cells(outcome.out)
    assert found["done"][:5] == ["done", "8/8", "2/2", "200", "1:15"]
    assert found["failed"][:5] == ["failed", "4/8", "1/2", "503", "0:02"]
    assert found["asked"][0] == "interrupted"
    assert found["killed"][:3] == ["running", "2/8", "0.5/2"]
    assert found["done"][5] == "75.0 (2 trunk)"
    assert found["failed"][5] == "-"
    assert [found[name][-1] for name in ("done", "failed", "asked", "killed")] == ["0.2", "0.4", "0.2", "0.3"]
    assert "seed" in outcome.out
    below = outcome.out.splitlines()[-5:]
    assert below[0] == "1 more keys differ: --csv FILE has all"
    assert below[1] == "apart: only logs of a run that another host keeps (it has no config.yaml)"
    assert below[2].startswith("broken: cannot be read (")
    assert below[3].startswith("linked: cannot be read (it is a symbolic link")
    assert below[4] == "notes: no run (it has no config.yaml)"
    assert "stopped" in onward("runs", "runs").out, "nobody holds its lock any more, and it has not said why"


def test_the_csv_has_every_number_and_every_key_that_differs(runs: Path, onward: Onward) -> None:
    assert onward("runs", "runs", "--csv", "x.csv", "--sort", "optimizer.lr").code == 0
    with Path("x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["asked", "done", "killed", "failed"]
    done = rows[1]
    assert (done["linear/quick"], done["linear/quick block"], done["linear/quick feature"]) == ("0.75", "2", "trunk")
    assert (done["seconds"], done["total_steps"], done["metrics.port"], done["seed"]) == ("75.0", "8", "0", "1")
    assert rows[2]["metrics.port"] == "9"
    assert "run_dir" not in done


@pytest.mark.parametrize(
    ("sort", "names"),
    [("seconds", ["killed", "asked", "failed", "done"]), ("run", ["asked", "done", "failed", "killed"]),
     ("linear/quick", ["done", "asked", "failed", "killed"]), ("steps", ["done", "asked", "failed", "killed"])],
)  # fmt: skip
def test_the_order(sort: str, names: list[str], runs: Path, onward: Onward) -> None:
    outcome = onward("runs", "runs", "--sort", sort)
    assert list(reversed(cells(outcome.out))) == names, outcome.err


def test_the_best_of_every_measure_is_the_best_of_all_blocks(tmp_path: Path) -> None:
    results = [Record(DATA, block, "trunk", "knn/20", "top1", value=value) for block, value in ((1, 0.3), (2, 0.2))]
    results += [Record("cifar10", 1, "trunk", "knn/20", "top1", value=0.9)]
    results += [Record(DATA, 3, "trunk", "linear/quick", "top1", value=0.8)]
    run = RunDir(write_run(tmp_path / "run", document(results)))
    write_json(run.report, {"trained": [{"trunk": 0.7, "expansion": True}, "damaged"]})
    online = line(0)["stages"]
    run.metrics.write_text(json.dumps(line(0)) + "\n" + '{"step": 1')
    best = read_listed(run.path).best
    assert best["knn/20"] == BestAccuracy(0.3, 1, "trunk")
    assert best["linear/quick"] == BestAccuracy(0.8, 3, "trunk")
    assert best["online/linear"] == BestAccuracy(online[3]["online"]["linear"], 4, "")
    assert read_listed(run.path).steps == 1, "the last line is still being written"


def test_a_run_of_which_nothing_but_the_configuration_is_there(tmp_path: Path, onward: Onward) -> None:
    write_run(tmp_path / "run", None)
    found = cells(onward("runs", tmp_path / "run").out)
    assert found["run"] == ["stopped", "0/6", "-", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], r"^'nowhere' cannot be read \(No such file .+\)\. Give the folder of runs, such as runs/$"),
        (["runs/notes"], r"^'runs/notes' holds no run\. Give the folder of runs"),
        (["runs", "--sort", "secs"], r"^--sort: 'secs' is no column\. (Did you mean .+)?Allowed: run, state"),
        (["runs", "--csv", "runs"], r"^'runs' cannot be written \("),
    ],
)  # fmt: skip
def test_what_cannot_be_listed(
    arguments: list[str], expected: str, runs: Path, onward: Onward, assert_refused: Callable[[Any, str], None]
) -> None:
    assert_refused(onward("runs", *arguments), expected)


def test_of_sections_of_other_kinds_the_kind_is_named(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / kind, None, f"objective.kind={kind}", f"stages.2.optimizer.lr={lr}")
        for kind, lr in (("vicreg", 0.1), ("simclr", 0.2))
    ]
    settings = [read_listed(path).settings for path in paths]
    assert differing_keys(settings) == ["objective.kind", "stages.2.optimizer.lr"]
    assert differing_keys([settings[0], settings[0] | {"link.kind": "p2p", "seed": 7}]) == []


def test_secrets_are_not_listed(tmp_path: Path, onward: Onward) -> None:
    for number in range(2):
        tracker = f"trackers=[{{kind: 'a:B', options: {{project: s3cr3t{number}, api_key: s3cr3t{number}}}}}]"
        write_run(tmp_path / "runs" / str(number), None, tracker, f"seed={number}")
    outcome = onward("runs", tmp_path / "runs", "--csv", tmp_path / "x.csv")
    assert outcome.code == 0, outcome.err
    assert "s3cr3t" not in outcome.out + (tmp_path / "x.csv").read_text()


def test_of_many_steps_two_lines_are_read(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=2)
    with run.metrics.open("r+b") as file:
        first = file.readline()
        file.truncate(len(first))
        file.seek(1 << 33)  # eight gigabytes of nothing
        file.write(b"\n" + json.dumps(line(2_000_000)).encode() + b"\n")
    assert read_listed(run.path).steps == 2_000_001
    assert os.stat(run.metrics).st_size > 1 << 33, "and nobody could read all of it here"


@pytest.mark.processes
def test_torch_is_not_loaded_for_a_list(tmp_path: Path) -> None:
    write_run(tmp_path / "run", None)
    code = "import sys\nfrom launch.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-P", "-c", code, "runs", str(tmp_path)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "False", ended.stderr
