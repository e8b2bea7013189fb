"""`onward select`: the order of runs, the correlations with accuracy, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from pipeline.measures.rank_correlation import RankCorrelation, rank_correlation
from pipeline.validation.loading import dump_config
from tests.pipeline.small import small_config

Values = Mapping[str, float]
GOOD: dict[str, float] = {"lidar": 20.0, "rankme": 10.0, "alpha": 1.2, "alpha_r2": 0.9, "collapse": 0.1, "top1": 0.8}


def records(values: Values, block: int, feature: str, data: str = "fashion_mnist_10k") -> list[Record]:
    measures = {"top1": "linear/quick"}
    return [Record(data, block, feature, measures.get(m, "quality"), m, value) for m, value in values.items()]


def write_run(
    path: Path, results: list[Record] | None, checkpoint: int | None = None, config: dict[str, Any] | None = None
) -> str:
    """A run directory with an evaluation (None: without); its name, as it is given to the command."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(dump_config(small_config()))
    if results is not None:
        document = EvaluationResults(
            run=str(path), checkpoint=checkpoint, config=config or {"quality": {"samples": 1000}}, seed=0,
            run_config_digest="0" * 64, versions={"torch": "2"}, data=DataInfo("fashion_mnist_10k", 100, 50, 10),
            created="2026-01-01T00:00:00+00:00", results=results,
        )  # fmt: skip
        file = path / "evaluation.json" if checkpoint is None else path / "evaluation" / f"step_{checkpoint}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document.to_json()))
    return str(path) if checkpoint is None else f"{path}@{checkpoint}"


def sweep(folder: Path, metric: str, numbers: list[float], accuracies: list[float] | None = None) -> list[str]:
    """Runs a, b, c, ... that differ in one measure, and in accuracy if given."""
    names = []
    for index, number in enumerate(numbers):
        values = {**GOOD, metric: number}
        if accuracies is not None:
            values["top1"] = accuracies[index]
        names.append(write_run(folder / "abcdefgh"[index], records(values, 4, "trunk")))
    return names


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def order(out: str) -> str:
    """The names of the runs, in the order of the table."""
    table = out.split("rank correlation")[0]
    return "".join(line.split("│")[1].strip() for line in table.splitlines() if "│" in line)


@pytest.mark.parametrize(
    ("metric", "numbers", "expected"),
    [
        ("lidar", [3.0, 30.0, 12.0], "bca"),
        ("rankme", [3.0, 30.0, 12.0], "bca"),
        ("collapse", [0.01, 0.2, 0.1], "bca"),
        ("alpha", [1.3, 0.0, 0.8], "cab"),
    ],
)
def test_order(onward: Callable[..., Any], metric: str, numbers: list[float], expected: str) -> None:
    names = sweep(Path(), metric, numbers)
    outcome = onward("select", *names, "--by", metric)
    assert outcome.code == 0, outcome.err
    assert order(outcome.out) == expected
    assert order(onward("select", *reversed(names), "--by", metric).out) == expected


def test_lidar_of_the_trunk_of_the_last_block_decides_unless_told_otherwise(onward: Callable[..., Any]) -> None:
    for name, block1, trunk, projector in [("a", 9.0, 1.0, 2.0), ("b", 1.0, 5.0, 1.0), ("c", 5.0, 3.0, 9.0)]:
        results = records({"lidar": block1}, 1, "trunk") + records({"lidar": trunk}, 4, "trunk")
        results += records({"lidar": projector}, 4, "projector") + records({"lidar": 99 - trunk}, 4, "trunk", "cifar10")
        write_run(Path(name), results)
    assert order(onward("select", "a", "b", "c").out) == "bca"
    assert order(onward("select", "a", "b", "c", "--block", "4").out) == "bca"
    assert order(onward("select", "a", "b", "c", "--block", "1").out) == "acb"
    assert order(onward("select", "a", "b", "c", "--feature", "projector").out) == "cab"


def test_snapshots_of_a_run(onward: Callable[..., Any]) -> None:
    first = write_run(Path("run"), records({"lidar": 2.0}, 4, "trunk"), checkpoint=100)
    second = write_run(Path("run"), records({"lidar": 7.0}, 4, "trunk"), checkpoint=200)
    last = write_run(Path("run"), records({"lidar": 5.0}, 4, "trunk"))
    outcome = onward("select", first, second, last)
    assert outcome.code == 0, outcome.err
    assert order(outcome.out) == "run@200" + "run" + "run@100"
    with_sign = write_run(Path("run@300"), records({"lidar": 6.0}, 4, "trunk"))  # a folder of that name goes first
    assert onward("select", first, with_sign).code == 0


def test_correlations_are_those_of_scipy(onward: Callable[..., Any]) -> None:
    lidars, accuracies = [3.0, 9.0, 9.0, 20.0, 15.0], [0.5, 0.6, 0.7, 0.8, 0.8]
    names = sweep(Path(), "lidar", lidars, accuracies)
    out = onward("select", *names).out
    tau, rho = stats.kendalltau(lidars, accuracies).statistic, stats.spearmanr(lidars, accuracies).statistic
    row = next(line for line in out.splitlines() if "LiDAR" in line and f"{tau:+.3f}" in line)
    assert f"{rho:+.3f}" in row
    assert "linear quick top-1 of the trunk, 5 runs" in out
    assert "RankMe" not in out.split("rank correlation")[1]  # it is the same in all runs


def test_alpha_counts_by_its_distance_to_one(onward: Callable[..., Any]) -> None:
    names = sweep(Path(), "alpha", [0.5, 1.1, 2.0, 1.0], [0.6, 0.7, 0.5, 0.8])
    assert "+1.000" in onward("select", *names, "--by", "alpha").out


@pytest.mark.parametrize(
    ("accuracies", "runs", "expected"),
    [
        (None, 2, "2 runs are too few, and 3 the fewest"),
        ([0.5, 0.5, 0.5], 3, "the runs have the same accuracy"),
    ],
)
def test_no_correlations(onward: Callable[..., Any], accuracies: list[float] | None, runs: int, expected: str) -> None:
    assert expected in onward("select", *sweep(Path(), "lidar", [1.0, 2.0, 3.0][:runs], accuracies)).out


def test_runs_without_labels_are_still_ordered(onward: Callable[..., Any]) -> None:
    for name, number in (("a", 1.0), ("b", 4.0), ("c", 2.0)):
        write_run(Path(name), records({"lidar": number}, 2, "trunk"))
    outcome = onward("select", "a", "b", "c")
    assert order(outcome.out) == "bca"
    assert "no rank correlations: the runs have no linear probe in common" in outcome.out


def test_accuracy_of_another_measure(onward: Callable[..., Any]) -> None:
    for name, number, quick, nearest in (("a", 1.0, 0.9, 0.1), ("b", 2.0, 0.8, 0.2), ("c", 3.0, 0.7, 0.3)):
        results = records({"lidar": number, "top1": quick}, 4, "trunk")
        write_run(Path(name), [*results, Record("fashion_mnist_10k", 4, "trunk", "knn/20", "top1", nearest)])
    assert "-1.000" in onward("select", "a", "b", "c").out
    assert "+1.000" in onward("select", "a", "b", "c", "--accuracy", "knn/20").out


def test_an_unprobed_feature_is_compared_with_the_trunk(onward: Callable[..., Any]) -> None:
    for name, number, top1 in (("a", 1.0, 0.1), ("b", 2.0, 0.2), ("c", 3.0, 0.3)):
        results = records({"lidar": number}, 4, "projector") + records({"lidar": 5 - number, "top1": top1}, 4, "trunk")
        write_run(Path(name), results)
    out = onward("select", "a", "b", "c", "--feature", "projector").out
    assert order(out) == "cba"
    lines = out.split("rank correlation")[1].splitlines()
    assert any("projector" in line and "+1.000" in line for line in lines)
    assert any("trunk" in line and "-1.000" in line for line in lines)


def test_other_settings_are_told(onward: Callable[..., Any]) -> None:
    write_run(Path("a"), records(GOOD, 4, "trunk"))
    write_run(Path("b"), records(GOOD, 4, "trunk"), config={"quality": {"samples": 50}})
    out = onward("select", "a", "b").out
    assert "warning: b was evaluated otherwise than a: evaluation.quality.samples is 1000 there, 50 here" in out


def test_csv(onward: Callable[..., Any], tmp_path: Path) -> None:
    names = sweep(Path(), "lidar", [1.0, 3.0], [0.25, 0.5])
    assert onward("select", *names, "--csv", tmp_path / "out" / "order.csv").code == 0
    with (tmp_path / "out" / "order.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["run"], row["lidar"], row["accuracy"]) for row in rows] == [
        ("1", "b", "3.0", "0.5"),
        ("2", "a", "1.0", "0.25"),
    ]
    assert rows[0]["accuracy_measure"] == "linear/quick"
    assert (rows[0]["checkpoint"], rows[0]["block"], rows[0]["feature"]) == ("", "4", "trunk")


def test_names_do_not_reach_the_terminal_raw(onward: Callable[..., Any]) -> None:
    names = [write_run(Path(f"run\x1b[31m{end}"), records(GOOD, 4, "trunk")) for end in "ab"]
    out = onward("select", *names).out
    assert "\x1b[31m" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a"], r"^one run is nothing to choose from\. Give two or more"),
        (["a", "./a"], r"^'\./a' is given twice"),
        (["a", "nowhere"], r"^'nowhere' does not exist.*Give a folder that 'onward train' wrote"),
        (["a", "bare"], r"^'bare/evaluation\.json' does not exist.*Run 'onward evaluate bare' first"),
        (["a", "a@100"], r"step_100\.json' does not exist.*Run 'onward evaluate a evaluation\.checkpoint=100' first"),
        (["a", "probed"], r"has no measures without labels\. Run 'onward evaluate probed evaluation\.quality\.enabled"),
        (["a", "damaged"], r"^'damaged/evaluation\.json' is no evaluation"),
        (["a", "snap"], r"is of the snapshot after 7 steps\. Run 'onward evaluate snap' again, or give snap@7$"),
        (["a", "b", "--by", "lider"], r"^--by: 'lider' is nothing .* Did you mean 'lidar'\?"),
        (["a", "b", "--feature", "head"], r"^--feature: 'head' is no feature .* Allowed: trunk, expansion, projector$"),
        (["a", "b", "--block", "0"], r"^--block: '0' is no block\. Give a number from 1, or 'last'$"),
        (["a", "b", "--block", "9"], r"^--block: the evaluation of 'a' has no block 9\. It has 4$"),
        (["a", "b", "--feature", "projector"], r"'a' has no lidar of block 4 projector\. It has that of: trunk$"),
        (["a", "b", "--accuracy", "linear/quik"], r"^--accuracy: .*Did you mean 'linear/quick'\?"),
        (["a", "b", "--csv", "config.yaml/x.csv"], r"^'config\.yaml/x\.csv' cannot be written"),
    ],
)  # fmt: skip
def test_bad_input(
    onward: Callable[..., Any], assert_refused: Callable[[Any, str], None], arguments: list[str], expected: str
) -> None:
    for name in ("a", "b"):
        write_run(Path(name), records(GOOD, 4, "trunk"))
    write_run(Path("bare"), None)
    write_run(Path("probed"), records({"top1": 0.5}, 4, "trunk"))
    write_run(Path("damaged"), None)
    Path("damaged/evaluation.json").write_text('{"format": "onward-evaluation-1"')
    write_run(Path("snap"), records(GOOD, 4, "trunk"), checkpoint=7)
    Path("snap/evaluation/step_7.json").rename("snap/evaluation.json")
    Path("config.yaml").write_text("")
    outcome = onward("select", *arguments)
    if "--csv" in arguments:  # the order itself is told before
        outcome = type(outcome)(outcome.code, "", outcome.err)
    assert_refused(outcome, expected)


def test_rank_correlation() -> None:
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 40.0]) == RankCorrelation(1.0, 1.0)
    assert rank_correlation([3.0, 2.0, 1.0], [1.0, 2.0, 4.0]) == RankCorrelation(-1.0, -1.0)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None
    assert rank_correlation([1.0, 2.0], [1.0, 1.0]) is None
    found = rank_correlation([1.0, 2.0, 2.0, 3.0], [1.0, 3.0, 2.0, 4.0])
    assert found is not None
    assert found.kendall == pytest.approx(5 / 30**0.5)  # five pairs agree, one is tied: 5 / sqrt((6 - 1) 6)
    assert found.spearman == pytest.approx(0.9486832980505138)  # of the mean ranks 1, 2.5, 2.5, 4
