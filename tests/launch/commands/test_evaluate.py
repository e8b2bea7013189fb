"""`onward evaluate`: what it writes, what it takes, what it leaves out, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.evaluation.document import EvaluationResults, Record
from tests.workers.evaluating.evaluating_runs import CPU, TEST, TRAIN, image_folder, make_run, small_config
from workers.coordinator.finish import measure
from workers.evaluating.context import Context
from workers.run.files import RunDir, write_json

pytestmark = pytest.mark.long

SMALL = ("evaluation.knn.k=[3]", "evaluation.quality.samples=6", "evaluation.quality.views=2", "evaluation.plots=false")
CommandLine = Callable[..., Any]
REPORT = {
    "images": 8, "images_per_second": 0.0, "untrained": [], "trained": [],
    "stages": [{"stage": k, "skipped": 0, "busy": 1.0, "wait_input": 0.0, "wait_output": 0.0} for k in (1, 2)],
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, root: Path) -> RunDir:
    return make_run(tmp_path_factory.mktemp("made") / "run", small_config(root), snapshots=(4,))


@pytest.fixture
def run(tmp_path: Path, made: RunDir) -> RunDir:
    """Of this test alone."""
    return RunDir(Path(shutil.copytree(made.path, tmp_path / "run")))


def results(run: RunDir) -> dict[tuple[str, int, str], float]:
    document = EvaluationResults.read(run.path / "evaluation.json")
    return {(f"{r.measure} {r.metric}", r.block, r.feature): r.value for r in document.results}


def test_everything_is_written_and_the_report_gets_its_table(run: RunDir, root: Path, onward: CommandLine) -> None:
    write_json(run.report, REPORT)
    outcome = onward("evaluate", run.path, *SMALL, "evaluation.seed=7")
    assert outcome.code == 0, outcome.err
    document = EvaluationResults.read(run.path / "evaluation.json")
    assert (document.run, document.checkpoint, document.seed) == (str(run.path), None, 7)
    assert document.config["knn"] == {"k": [3], "temperature": 0.07}
    assert (document.data.train_images, document.data.test_images, document.data.classes) == (TRAIN, TEST, 2)
    assert document.versions.keys() == {"python", "torch", "torchvision", "onward"}
    assert document.created.endswith("+00:00")
    assert set(document.spectra) == {f"{k}.{what}" for k in (1, 2) for what in ("trunk", "expansion", "projector")}
    assert document.protocols["linear/quick"]["iterations"] == 100
    found = results(run)
    assert {what for what, _, _ in found} >= {"linear/quick top1", "knn/3 top1", "quality lidar", "quality rankme"}
    assert {path.name for path in (run.path / "evaluation").iterdir()} == {"features", "results.csv", "results.md"}
    report = json.loads(run.report.read_text())
    assert report == REPORT | measure(small_config(root), run, CPU)
    assert report["trained"][1]["trunk"] == found["linear/quick top1", 2, "trunk"]
    assert "k-NN" in outcome.out
    assert str(run.path / "evaluation") in outcome.out


def test_an_evaluation_that_is_repeated_reads_what_was_kept(
    run: RunDir, onward: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(run.report, REPORT)
    assert onward("evaluate", run.path, *SMALL).code == 0
    first = results(run)
    monkeypatch.setattr(
        "workers.evaluating.feature_source.FeatureSource._fill", lambda *_: pytest.fail("features were made again")
    )
    assert onward("evaluate", run.path, *SMALL).code == 0
    assert results(run) == first


def test_a_snapshot_is_evaluated_and_the_report_is_of_the_trained_network(run: RunDir, onward: CommandLine) -> None:
    write_json(run.report, REPORT)
    before = run.report.read_bytes()
    assert onward("evaluate", run.path, *SMALL).code == 0
    trained, run_digest = results(run), EvaluationResults.read(run.path / "evaluation.json").run_config_digest
    run.report.write_bytes(before)
    outcome = onward("evaluate", run.path, *SMALL, "evaluation.checkpoint=4")
    assert outcome.code == 0, outcome.err
    document = EvaluationResults.read(run.path / "evaluation.json")
    assert (document.checkpoint, document.run_config_digest) == (4, run_digest)
    assert EvaluationResults.read(run.path / "evaluation" / "step_4.json") == document
    assert results(run).keys() == trained.keys()
    assert results(run) != trained
    assert run.report.read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=3", r"^train\.epochs: cannot be changed for an evaluation: .*Give evaluation\.KEY=VALUE, dev"),
        ("seed=3", r"^seed: cannot be changed for an evaluation"),
        ("evaluation=none", r"^evaluation: cannot be changed"),
        ("device=cuda", r"^device: got 'cuda', and this machine has 0 GPUs"),
        ("evaluation.nope=3", r"^evaluation\.nope: unknown key"),
        ("evaluation.linear=[quik]", r"^evaluation\.linear\.0: unknown value 'quik'\. Did you mean 'quick'\?"),
        ("evaluation.blocks=[1,3]", r"^evaluation\.blocks\.1: there is no block 3\. Blocks are 1 to 2"),
        ("evaluation.checkpoint=5", r"^evaluation\.checkpoint: .* no snapshot after 5 steps\. There are .* 4 steps"),
        ("evaluation.transfer=[{name: mnist}]", r"^evaluation\.transfer\.0\.root: mnist needs the folder"),
        ("evaluation.corruptions.names=[fogg]", r"fogg"),
        ("mlp", r"^override 'mlp' is not of the form key=value"),
    ],
)  # fmt: skip
def test_what_no_evaluation_takes_is_refused_before_anything_is_written(
    run: RunDir, onward: CommandLine, assert_refused: Callable[[Any, str], None], tree: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch, override: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("launch.commands.evaluate.count_gpus", lambda: 0)
    write_json(run.report, REPORT)
    before = tree(run.path)
    assert_refused(onward("evaluate", run.path, override), message)
    assert tree(run.path) == before


def test_without_test_images_there_is_quality_and_no_probe(tmp_path: Path, onward: CommandLine) -> None:
    run = make_run(tmp_path / "run", small_config(image_folder(tmp_path / "data", test=False)))
    write_json(run.report, REPORT)
    outcome = onward("evaluate", run.path, *SMALL)
    assert outcome.code == 0, outcome.err
    assert "probes left out: " in outcome.out
    assert {what.split()[0] for what, _, _ in results(run)} == {"quality"}
    assert EvaluationResults.read(run.path / "evaluation.json").data.test_images == 0
    assert json.loads(run.report.read_text()) == REPORT


def test_without_labels_there_is_quality_and_no_probe(tmp_path: Path, onward: CommandLine) -> None:
    folder = image_folder(tmp_path / "data", test=False)
    config = small_config(folder)
    data = config.data.model_copy(update={"split": "unlabeled"})
    run = make_run(tmp_path / "run", config.model_copy(update={"data": data}))
    outcome = onward("evaluate", run.path, *SMALL)
    assert outcome.code == 0, outcome.err
    assert "probes left out: the images of image_folder have no labels" in outcome.out
    assert {what.split()[0] for what, _, _ in results(run)} == {"quality"}


def test_where_nothing_can_be_measured_the_first_reason_is_the_error(
    tmp_path: Path, onward: CommandLine, assert_refused: Callable[[Any, str], None]
) -> None:
    run = make_run(tmp_path / "run", small_config(image_folder(tmp_path / "data", test=False)))
    outcome = onward("evaluate", run.path, *SMALL, "evaluation.quality.enabled=false")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert not (run.path / "evaluation.json").exists()
    off = ("evaluation.quality.enabled=false", "evaluation.linear=[]", "evaluation.knn.k=[]")
    assert_refused(onward("evaluate", run.path, *off), r"^nothing is to be measured")


def test_weights_that_diverged_are_named_and_the_blocks_before_them_are_measured(
    run: RunDir, onward: CommandLine
) -> None:
    write_json(run.report, REPORT)
    tensors = load_file(run.stage(2))
    tensors["block.layer2.1.conv1.weight"] = torch.full_like(tensors["block.layer2.1.conv1.weight"], float("nan"))
    save_file(tensors, run.stage(2))
    outcome = onward("evaluate", run.path, *SMALL)
    assert outcome.code == 2
    assert outcome.err.startswith("error: the features of block 2 trunk hold NaN or infinity")
    assert outcome.err.count("\n") == 1
    outcome = onward("evaluate", run.path, *SMALL, "evaluation.blocks=[1]")
    assert outcome.code == 0, outcome.err
    assert {block for _, block, _ in results(run)} == {1}


def test_a_number_that_is_none_is_named_and_left_out(
    run: RunDir, onward: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_two(context: Context) -> list[Record]:
        return [
            Record("x", 1, "trunk", "quality", metric, value=value)
            for metric, value in (("a", float("nan")), ("b", 2.0))
        ]

    monkeypatch.setattr("workers.evaluating.evaluation.MEASURES", (("two numbers", measure_two),))
    outcome = onward("evaluate", run.path, "evaluation.plots=false")
    assert outcome.code == 0, outcome.err
    assert "quality a of block 1 trunk is nan: left out" in outcome.out
    assert results(run) == {("quality b", 1, "trunk"): 2.0}


def test_a_disk_without_room_is_said(
    run: RunDir, onward: CommandLine, assert_refused: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("launch.commands.evaluate.write_json", full)
    outcome = onward("evaluate", run.path, *SMALL)
    assert outcome.code == 2
    assert "evaluation.json' cannot be written (No space left on device). Make room" in outcome.err


def test_a_report_that_cannot_be_read_stays(run: RunDir, onward: CommandLine) -> None:
    run.report.write_text("[" * 200_000)
    outcome = onward("evaluate", run.path, *SMALL)
    assert outcome.code == 0, outcome.err
    assert "report.json' stays as it is: it cannot be read" in outcome.out
    assert run.report.read_text() == "[" * 200_000
    assert results(run)


def test_nothing_is_kept_if_the_cache_is_off(run: RunDir, onward: CommandLine) -> None:
    assert onward("evaluate", run.path, *SMALL, "evaluation.cache=false").code == 0
    kept = results(run)
    assert not (run.path / "evaluation" / "features").exists()
    shutil.rmtree(run.path / "evaluation")
    assert onward("evaluate", run.path, *SMALL).code == 0
    assert results(run) == kept
