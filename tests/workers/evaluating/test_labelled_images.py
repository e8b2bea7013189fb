"""With `data.on_error: skip`, images that cannot be decoded are left out of every fit and every test, and counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.data.sets.datasets import Split
from pipeline.errors import TrainingError, UserError
from pipeline.evaluation.document import DataInfo, EvaluationResults
from tests.launch.commands.test_evaluate_ranks import Board
from tests.runs import LIMIT
from tests.workers.evaluating.evaluating_runs import CPU, TEST, TRAIN, context_of, image_folder, make_run, small_config
from workers.coordinator.finish import measure
from workers.evaluating.context import Context
from workers.evaluating.probes import measure_probes
from workers.evaluating.ranks import Ranks
from workers.evaluating.robustness import measure_corruptions
from workers.evaluating.transfer import transfer_contexts
from workers.run.files import write_json
from workers.topology.torchrun import RunGroup

pytestmark = pytest.mark.long

BROKEN = ("train/class0/4.png", "train/class1/21.png", "val/class1/3.png")
EVERYTHING: dict[str, Any] = {
    "linear": ["quick", "blockwise"], "mlp": True, "augmented": True, "epochs": 1, "knn": {"k": [3]},
    "few_labels": {"shares": [0.5], "unfrozen": True, "epochs": 1}, "places": ["trunk"],
    "corruptions": {"names": ["fog"], "severities": [1]},
}  # fmt: skip
REPORT = {"images": 8, "images_per_second": 0.0, "stages": []}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set of which two training images and a test image cannot be decoded: one cut short, two no images."""
    root = image_folder(tmp_path / "data")
    for name in BROKEN[1:]:
        (root / name).write_bytes(b"no image")
    first = root / BROKEN[0]
    first.write_bytes(first.read_bytes()[:-40])
    return root


@pytest.fixture
def intact(tmp_path: Path, broken: Path) -> Path:
    """The same data set without these files."""
    root = Path(shutil.copytree(broken, tmp_path / "intact"))
    for name in BROKEN:
        (root / name).unlink()
    return root


def skipping(root: Path, **evaluation: object) -> Config:
    config = small_config(root, **evaluation)
    return config.model_copy(update={"data": config.data.model_copy(update={"on_error": "skip"})})


def test_a_run_that_skipped_a_broken_file_is_probed_without_it(tmp_path: Path, broken: Path, intact: Path) -> None:
    """It trained for hours with `data.on_error=skip`, and then had no probes, for the very file that it had skipped."""
    run, said = make_run(tmp_path / "run", small_config(intact)), list[str]()
    found = measure(skipping(broken), run, CPU, note=said.append)
    assert found.pop("left_out") == {"train": 2, "test": 1}
    assert found == measure(small_config(intact), run, CPU)
    assert [words.split(" are left out: ")[0] for words in said] == ["2 of 22 train images", "1 of 9 test images"]
    assert all(sum(f"{name}' cannot be decoded" in words for words in said) == 1 for name in BROKEN)


def test_where_nothing_is_to_be_skipped_a_broken_file_is_refused(tmp_path: Path, broken: Path) -> None:
    run = make_run(tmp_path / "run", small_config(broken))
    with pytest.raises(UserError, match=r"'.*train/class0/4\.png' cannot be decoded"):
        measure(small_config(broken), run, CPU)


def test_all_measures_leave_out_the_same_images(broken: Path, intact: Path) -> None:
    whole, without = (
        context_of(make(root, **EVERYTHING, transfer=[{"name": "image_folder", "root": str(root)}]))
        for make, root in ((skipping, broken), (small_config, intact))
    )
    assert len(without.train) == TRAIN - 2
    for measures in (measure_probes, measure_corruptions):
        assert measures(whole) == measures(without)
    transferred = [[(r.measure, r.value) for other in transfer_contexts(c) for r in measure_probes(other)]
                   for c in (whole, without)]  # fmt: skip
    assert transferred[0] == transferred[1]
    assert transferred[0]


def test_a_data_set_of_nothing_but_broken_files(broken: Path) -> None:
    for path in (broken / "val").rglob("*.png"):
        path.write_bytes(b"")
    context = context_of(skipping(broken))
    with pytest.raises(UserError, match=r"^none of the 9 test images can be decoded: .*\(the file is empty\).*4 more$"):
        _ = context.test


def groups(size: int, timeout: float = LIMIT) -> list[Ranks]:
    board = Board()
    return [Ranks(RunGroup(rank, size, rank, size, board), timeout=timeout) for rank in range(size)]


def test_processes_that_share_the_work_leave_out_the_same(tmp_path: Path, broken: Path) -> None:
    contexts = [context_of(skipping(broken), tmp_path / "shared", ranks=ranks) for ranks in groups(3)]

    def counts(context: Context) -> list[int]:
        splits: tuple[Split, ...] = ("train", "test")
        return [len(context.source.images(context.data, split, context.progress)) for split in splits]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(counts, contexts)) == [[TRAIN - 2, TEST - 1]] * 3


@pytest.mark.parametrize("word", [None, {"problems": {"x": "y"}}, {"problems": [1]}])
def test_a_process_that_does_not_say_what_it_found_ends_all(word: dict[str, Any] | None) -> None:
    first, second = groups(2, 0.01 if word is None else LIMIT)
    if word is not None:
        second.group.publish("unreadable/1/1", word)
    with pytest.raises(TrainingError, match=r"process 1 had not said within .* which images it cannot decode"):
        first.join({})


def test_onward_evaluate_may_skip_what_the_run_did_not(
    tmp_path: Path, broken: Path, intact: Path, onward: Callable[..., Any]
) -> None:
    run = make_run(tmp_path / "run", small_config(broken, quality={"enabled": False}, knn={"k": [3]}, plots=False))
    write_json(run.report, REPORT)
    refused = onward("evaluate", run.path)
    assert (refused.code, "cannot be decoded" in refused.err) == (2, True)
    done = onward("evaluate", run.path, "data.on_error=skip")
    assert done.code == 0, done.err
    assert done.out.count("train images are left out") == done.out.count("test images are left out") == 1
    document = EvaluationResults.read(run.path / "evaluation.json")
    assert document.data == DataInfo("image_folder", TRAIN - 2, TEST - 1, 2, train_left_out=2, test_left_out=1)
    report = json.loads(run.report.read_text())
    assert report["left_out"] == {"train": 2, "test": 1}
    measured = measure(small_config(intact), run, CPU)
    assert {key: report[key] for key in measured} == measured


def test_a_run_whose_stages_read_the_data_is_evaluated_with_skip_too(
    tmp_path: Path, broken: Path, onward: Callable[..., Any]
) -> None:
    settings = small_config(broken, quality={"enabled": False}, plots=False).model_dump()
    settings["data"]["feed"], settings["objective"] = "stages", {"kind": "supervised"}
    settings["head"]["projector"] = [8, 2]
    run = make_run(tmp_path / "run", Config.model_validate(settings))
    done = onward("evaluate", run.path, "data.on_error=skip", "evaluation.knn.k=[3]")
    assert done.code == 0, done.err
