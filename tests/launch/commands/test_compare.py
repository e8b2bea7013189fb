"""`onward compare`: means, spreads and differences that are right, and nothing mixed that is not alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_ind

from launch.results.comparison_tables import Estimate, compare_documents, difference, estimate, grids
from launch.results.evaluation_settings import affects, other_settings
from pipeline.config.evaluation import EvaluationConfig
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from tests.launch.commands.evaluations import DATA, document, full, write_run
from workers.run.files import write_json

Onward = Callable[..., Any]


def one(value: float, measure: str = "linear/quick", metric: str = "top1", **changes: Any) -> EvaluationResults:
    return document([Record(DATA, 1, "trunk", measure, metric, value=value)], **changes)


def settings(**changes: Any) -> dict[str, Any]:
    return EvaluationConfig(**changes).model_dump(mode="json")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: three seeds of `a`, two of `b` with another learning rate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, learning_rate, values in (("a", 0.2, (0.50, 0.56, 0.53)), ("b", 0.3, (0.60, 0.66))):
        for seed, value in enumerate(values, 1):
            write_run(tmp_path / f"{name}{seed}", one(value), f"seed={seed}", f"optimizer.lr={learning_rate}")
    return tmp_path


def test_means_and_spreads_are_those_of_the_sample() -> None:
    assert estimate([]) is None
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([1.0, 2.0, 6.0]) == Estimate(3.0, pytest.approx(7**0.5), 3)


def test_the_error_of_a_difference_is_welchs() -> None:
    first, other = [0.50, 0.56, 0.53, 0.48], [0.60, 0.66, 0.71]
    change, error = difference(estimate(first), estimate(other)) or (0.0, None)
    reference = ttest_ind(other, first, equal_var=False)
    assert change == pytest.approx(sum(other) / 3 - sum(first) / 4)
    assert error is not None
    assert change / error == pytest.approx(reference.statistic)


def test_nothing_is_made_up_where_there_is_one_run_or_none() -> None:
    assert difference(estimate([0.5, 0.6]), estimate([0.7])) == (pytest.approx(0.15), None)
    assert difference(estimate([0.5]), estimate([0.7, 0.8])) == (pytest.approx(0.25), None)
    assert difference(None, estimate([0.7])) is None
    assert difference(estimate([0.7]), None) is None


def test_rows_are_the_union_in_the_order_of_the_tables() -> None:
    first = document(
        [
            Record("z", 1, "trunk", "quality", "lidar", value=5.0),
            Record("z", 2, "trunk", "linear/quick", "top1", value=0.5),
            Record("z", 1, "expansion", "linear/quick", "top1", value=0.6),
            Record("z", 1, "trunk", "linear/quick", "top1", value=0.7),
        ]
    )
    other = document(
        [
            Record("a", 1, "trunk", "linear/quick", "top1", value=0.1),
            Record("z", 1, "trunk", "linear/quick", "top1", value=0.8),
        ]
    )
    rows = compare_documents([[first], [other]])
    assert [(row.data, row.quantity.measure, row.feature, row.block) for row in rows] == [
        ("z", "linear/quick", "trunk", 1), ("z", "linear/quick", "trunk", 2), ("z", "linear/quick", "expansion", 1),
        ("z", "quality", "trunk", 1), ("a", "linear/quick", "trunk", 1),
    ]  # fmt: skip
    assert [[each and each.mean for each in row.estimates] for row in rows] == [
        [0.7, 0.8], [0.5, None], [0.6, None], [5.0, None], [None, 0.1],
    ]  # fmt: skip
    chosen = compare_documents([[first], [other]], ["quality/lidar", "line"])
    assert [row.quantity.metric for row in chosen] == ["lidar"]


def test_a_cell_says_how_many_runs_it_is_of_where_that_is_not_all() -> None:
    rows = compare_documents([[one(0.25), document([])], [one(0.5), one(0.75)]])
    (grid,) = grids(rows, [("A", "lr=1"), ("B", "lr=2")], [2, 2])
    assert grid.head == (("feature",), ("block",), ("A", "lr=1"), ("B", "lr=2"), ("B", "− A"))
    assert grid.rows == (("trunk", "1", "25.0 (n=1)", "62.5 ± 17.7", "+37.5"),)


def test_seeds_are_taken_together_and_differences_told(runs: Path, onward: Onward) -> None:
    outcome = onward("compare", "a1", "b1", "a2", "a3", "b2")
    assert (outcome.code, outcome.err) == (0, "")
    head = outcome.out.splitlines()[:4]
    assert head == [
        "A  a1, a2, a3 (seeds 1, 2, 3)",
        "B  b1, b2 (seeds 1, 2)",
        "B differs from A: optimizer.lr is 0.2 there, 0.3 here",
        f"{DATA}: linear quick top-1, %",
    ]
    heading = next(line for line in outcome.out.splitlines() if "feature" in line)
    assert [cell.strip() for cell in heading.strip("┃").split("┃")] == [
        "feature", "block", "optimizer.lr=0.2", "optimizer.lr=0.3", "− A",
    ]  # fmt: skip
    row = next(line for line in outcome.out.splitlines() if "trunk" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "trunk", "1", "53.0 ± 3.0", "63.0 ± 4.2", "+10.0 ± 3.5",
    ]  # fmt: skip
    assert "sample standard deviation over seeds; difference ± its standard error" in outcome.out
    assert max(len(line) for line in outcome.out.splitlines() if line[:1] in "│┃┏└") <= 80


def test_the_csv_has_every_digit_and_the_markdown_every_table(runs: Path, onward: Onward) -> None:
    outcome = onward(
        "compare", "a1", "a2", "b1", "b2", "--csv", "new/x.csv", "--markdown", "new/x.md", "--plot", "plots"
    )
    assert outcome.code == 0
    with (runs / "new" / "x.csv").open(newline="", encoding="utf-8") as file:
        first, other = list(csv.DictReader(file))
    assert (first["group"], first["runs"], first["n"], first["difference"]) == ("A", "a1; a2", "2", "")
    assert [row["optimizer.lr"] for row in (first, other)] == ["0.2", "0.3"]
    assert float(first["mean"]) == 0.53
    assert float(first["sd"]) == pytest.approx(0.03 * 2**0.5)
    assert float(other["difference"]) == pytest.approx(0.1)
    assert float(other["standard_error"]) == pytest.approx((2 * 0.03**2) ** 0.5)
    text = (runs / "new" / "x.md").read_text(encoding="utf-8")
    assert text.startswith("# Comparison\n\n- A  a1, a2 (seeds 1, 2)\n")
    assert "| trunk | 1 | 53.0 ± 4.2 | 63.0 ± 4.2 | +10.0 ± 4.2 |" in text
    names = sorted(path.name for path in (runs / "plots").iterdir())
    assert names == [f"compare-{DATA}-accuracy-trunk.{kind}" for kind in ("png", "svg")]


def test_what_was_measured_otherwise_is_warned_of_and_never_averaged(runs: Path, onward: Onward) -> None:
    write_run(runs / "a4", one(0.9, "linear/blockwise", config=settings(epochs=3)), "seed=4")
    for seed in (5, 6):
        write_run(runs / f"a{seed}", one(0.9, "linear/blockwise"), f"seed={seed}")
    outcome = onward("compare", "a5", "a6", "a4")
    assert "warning: a4 was evaluated otherwise than a5: evaluation.epochs is null there, 3 here" in outcome.out
    assert outcome.out.startswith("A  a5, a6 (seeds 5, 6)\nB  a4 (seed 4)\n")
    write_run(runs / "a7", one(0.9, config=settings(epochs=3, plots=False)), "seed=7")
    outcome = onward("compare", "a1", "a7")
    assert "warning" not in outcome.out  # the quick probe has no epochs
    assert outcome.out.startswith("A  a1, a7 (seeds 1, 7)\n")


def test_another_snapshot_or_the_same_seed_again_is_no_sample(runs: Path, onward: Onward) -> None:
    (runs / "a3" / "evaluation").mkdir()
    write_json(runs / "a3" / "evaluation" / "step_30.json", one(0.4, checkpoint=30).to_json())
    write_run(runs / "again", one(0.5), "seed=1", "optimizer.lr=0.2")
    outcome = onward("compare", "a1", "a2", "a3@30", "again")
    assert outcome.out.splitlines()[:4] == [
        "A  a1, a2 (seeds 1, 2)",
        "B  a3@30 (seed 3)",
        "C  again (seed 1)",
        "C has the configuration and a seed of A: it is no other sample",
    ]


def test_the_short_table_leaves_out_what_can_be_asked_for(runs: Path, onward: Onward) -> None:
    for name, offset in (("x", 0.0), ("y", 0.02)):
        write_run(runs / name, full(2, offset), f"optimizer.lr={0.4 + offset}")
    short = onward("compare", "x", "y").out
    assert "top-5" not in short
    assert "severity" not in short
    assert "fog" not in short
    titles = [line for line in short.splitlines() if line.startswith(DATA)]
    assert titles[-3:] == [f"{DATA}: clean error, %", f"{DATA}: mean error, %", f"{DATA}: mCE, %"]
    assert "more numbers with --measure and --csv" in short
    assert "k-NN, k = 20 top-5, %" in onward("compare", "x", "y", "--measure", "knn/20/top5").out
    fog = onward("compare", "x", "y", "--measure", "corruption/fog").out
    assert "fog severity 5 error, %" in fog
    assert "fog CE, %" in fog
    assert "frost" not in fog
    both = onward("compare", "x", "y", "--measure", "mlp", "--measure", "quality/lidar").out
    titles = [line for line in both.splitlines() if line.startswith((DATA, "cifar10"))]
    assert titles == [f"{DATA}: MLP top-1, %", f"{DATA}: LiDAR", "cifar10: MLP top-1, %"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a1"], r"^one run is nothing to compare\. Give two or more"),
        (["a1", "nowhere"], r"^'nowhere' does not exist\. Give a folder that 'onward train' wrote"),
        (["a1", "."], r"^'\.' is not a run directory: it has no config\.yaml"),
        (["a1", "a2", "./a1"], r"^'\./a1' is given twice\. Give every run once$"),
        (
            ["a1", "new"],
            r"^'new/evaluation\.json' does not exist: that was not evaluated\. Run 'onward evaluate new' first$",
        ),
        (
            ["a1", "a1@30"],
            r"^'a1/evaluation/step_30\.json' does not exist: .+ Run 'onward evaluate a1 evaluation\.checkpoint=30' f",
        ),
        (
            ["a1", "early"],
            r"^'early/evaluation\.json' is of the snapshot after 30 steps\. Run .+ again, or give early@30$",
        ),
        (["a1", "broken"], r"^'broken/evaluation\.json' is no evaluation \(.+\)\. Run 'onward evaluate RUN' again$"),
        (["a1", "old"], r"^'old/evaluation\.json' is no evaluation \('format' is not 'onward-evaluation-1'\)"),
        (["a1", "a2", "--measure", "linaer/quick"], r"has 'linaer/quick'\. Did you mean 'linear/quick'\? Allowed: li"),
        (["a1", "a2", "--measure", "linear/qui"], r"none of the runs has 'linear/qui'"),
        (["a1", "a2", "--measure", ""], r"^--measure: none of the runs has ''\. Allowed: linear/quick$"),
        (["a1", "other"], r"^the runs have nothing in common that was measured\. Evaluate them with the same"),
        (["a1", "ended"], r"^the runs have nothing in common that was measured\."),
        (["a1", "other", "--measure", "knn/5"], r"nothing in common of knn/5\. "),
        (["empty", "empty2", "--measure", "x"], r"has 'x'\. Nothing was measured; run 'onward evaluate RUN' again$"),
        (["a1", "a2", "--csv", "a1"], r"^'a1' cannot be written \(.+\)\. Give a place in which you may write$"),
        (["a1", "a2", "--plot", "a1/config.yaml"], r"cannot be written \(.+\)\. Give a place"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str], expected: str, runs: Path, onward: Onward, assert_refused: Callable[[Any, str], None]
) -> None:
    write_run(runs / "new", None)
    write_run(runs / "early", one(0.4, checkpoint=30), "seed=9")
    write_run(runs / "broken", one(0.5))
    path = runs / "broken" / "evaluation.json"
    path.write_bytes(path.read_bytes()[:-40])
    write_run(runs / "old", one(0.5))
    path = runs / "old" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "onward-evaluation-0"}))
    write_run(runs / "other", one(0.5, "knn/5"), "train.epochs=9")
    write_json(write_run(runs / "ended", None, "train.epochs=9") / "report.json", {"trained": [{"expansion": 0.5}]})
    write_run(runs / "empty", document([]))
    write_run(runs / "empty2", document([]), "train.epochs=9")
    assert_refused(onward("compare", *arguments), expected)


def test_names_out_of_a_file_reach_the_terminal_harmless(runs: Path, onward: Onward) -> None:
    evil = "\x1b[2J[red]"
    for name in ("x", "y"):
        record = Record(evil, 1, "trunk", f"{evil}/b", evil, value=1.0)
        write_run(runs / name, document([record], config={evil: name}), f"optimizer.lr=0.{len(name)}")
    outcome = onward("compare", "x", "y", "--measure", f"{evil}/b")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "?[2J[red]" in outcome.out
    refused = onward("compare", "x", "y", "--measure", "\x1b[0m")
    assert "\x1b" not in refused.err


@pytest.mark.parametrize(
    ("key", "measure", "expected"),
    [
        ("epochs", "linear/quick", False), ("epochs", "linear/byol", True), ("epochs", "mlp", True),
        ("epochs", "knn/20", False), ("augmented", "few_labels/0.1", True), ("augmented", "quality", False),
        ("seed", "quality", True), ("seed", "knn/20", False), ("seed", "corruption/mean", True),
        ("knn.k", "knn/20", False), ("knn.temperature", "knn/20", True), ("knn.temperature", "mlp", False),
        ("few_labels.shares", "few_labels/0.1", False), ("few_labels.unfrozen", "few_labels/0.1", True),
        ("quality.samples", "quality", True), ("quality.places", "quality", False), ("quality.delta", "mlp", False),
        ("corruptions.names", "corruption/mean", True), ("corruptions.folder", "linear/quick", False),
        ("batch_size", "quality", False), ("places", "mlp", False), ("online.lr", "quality", False),
        ("something_new", "mlp", True),
    ],
)  # fmt: skip
def test_which_settings_change_which_numbers(key: str, measure: str, expected: bool) -> None:
    assert affects(key, measure) == expected


def test_every_setting_is_known_to_belong_somewhere() -> None:
    """A new key of `evaluation` must be thought about: without an entry it would warn for every measure."""
    known = {"seed", "epochs", "augmented"}
    for key in EvaluationConfig.model_fields:
        value = getattr(EvaluationConfig(), key)
        below = type(value).model_fields if hasattr(type(value), "model_fields") else ()
        for name in [f"{key}.{each}" for each in below] or [key]:
            everywhere = all(affects(name, measure) for measure in ("linear/byol", "knn/5", "quality", "x"))
            assert not everywhere or name in known, name


def test_other_data_of_the_same_name_are_told() -> None:
    other = replace(document([]), data=DataInfo(DATA, 8000, 100, 10))
    assert list(other_settings(document([]), other, ["mlp"])) == ["data: test_images is 2000 there, 100 here"]
