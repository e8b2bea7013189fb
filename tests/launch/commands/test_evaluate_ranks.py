"""An evaluation whose features are made by several processes: the bytes of one, and an end when one of them ends."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from launch.commands.evaluate import evaluate_run, main
from pipeline.config.places import Place
from pipeline.data.sets.datasets import ImageDataset, Split
from pipeline.errors import TrainingError, UserError
from pipeline.evaluation.document import EvaluationResults
from pipeline.evaluation.feature_set import FeatureSet
from tests.recovery import python
from tests.runs import LIMIT, Process
from tests.workers.evaluating.evaluating_runs import context_of, image_folder, make_run, small_config
from workers.evaluating.context import Context
from workers.evaluating.feature_cache import Written
from workers.evaluating.ranks import Ranks
from workers.run.files import RunDir, write_json
from workers.topology.torchrun import RunGroup

pytestmark = pytest.mark.long

SMALL = ("evaluation.knn.k=[3]", "evaluation.quality.enabled=false", "evaluation.plots=false")
WRITTEN = Written(88, "ab" * 32, 4)


def torchrun(run: RunDir, processes: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = python("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    command += ["-m", "launch.evaluate", str(run.path), *SMALL, *overrides]
    process = Process(command, {"OMP_NUM_THREADS": "1"}, forked=True)
    try:
        out, err = process.communicate()
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.wait(), out, err)


def kept(run: RunDir) -> dict[str, bytes]:
    folder = run.path / "evaluation" / "features"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.processes
def test_several_processes_write_the_bytes_of_one(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    alone, shared = (make_run(tmp_path / name, small_config(root)) for name in ("alone", "shared"))
    for run in (alone, shared):
        write_json(run.report, {"images": 8, "images_per_second": 0.0, "stages": []})
    assert evaluate_run(alone.path, SMALL) == 0
    result = torchrun(shared, 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("tables and figures are in") == 1
    assert len(kept(alone)) == 4 * 5
    assert kept(shared) == kept(alone)
    documents = [EvaluationResults.read(run.path / "evaluation.json") for run in (alone, shared)]
    assert documents[0].results == documents[1].results
    assert shared.report.read_bytes() == alone.report.read_bytes()


@pytest.mark.processes
@pytest.mark.slow
def test_a_process_that_cannot_go_on_ends_all(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    run = make_run(tmp_path / "run", small_config(root))
    # The last image of the training set is in the share of the last process.
    (root / "train" / "class1" / "9.png").write_bytes(b"no image")
    result = torchrun(run, 2)
    assert result.returncode != 0
    assert "error: " in result.stderr
    assert "9.png' cannot be decoded" in result.stderr
    assert not (run.path / "evaluation.json").exists()


class Board:
    """The part of torchrun's store that is used, for processes that are threads of one, or follow each other in it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._changed = threading.Condition()

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self.values[key] = value
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        return self.values[key].encode(errors="surrogateescape")

    def check(self, keys: list[str]) -> bool:
        with self._changed:
            return self.values.keys() >= set(keys)

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.values.keys() >= set(keys), timeout.total_seconds()):
                raise RuntimeError("wait timeout")


@pytest.mark.parametrize(("size", "cache"), [(2, True), (2, False), (3, True), (8, True)])
def test_parts_are_joined_to_what_one_makes(tmp_path: Path, size: int, cache: bool) -> None:
    config = small_config(image_folder(tmp_path / "data"), cache=cache)
    board = Board()

    groups = [Ranks(RunGroup(rank, size, rank, size, board), timeout=LIMIT) for rank in range(size)]
    contexts = [context_of(config, tmp_path / "shared", ranks=ranks) for ranks in groups]

    def both(context: Context) -> list[FeatureSet]:
        parts: list[tuple[Split, ImageDataset]] = [("train", context.train_images), ("test", context.test_images)]
        return [context.source.get(*part, context.data, context.places, context.progress) for part in parts]

    with ThreadPoolExecutor(size) as pool:
        found, *others = pool.map(both, contexts)
    alone = context_of(config, tmp_path / "alone")
    for part, expected in zip(found, (alone.train, alone.test), strict=True):
        assert part.features.keys() == expected.features.keys()
        assert all(torch.equal(part.features[place], expected.features[place]) for place in expected.features)
    assert not any(part.features for parts in others for part in parts)
    left = {path.relative_to(tmp_path / "shared"): path.read_bytes() for path in (tmp_path / "shared").rglob("*.*")}
    assert left == {
        path.relative_to(tmp_path / "alone"): path.read_bytes() for path in (tmp_path / "alone").rglob("*.*")
    }
    assert bool(left) == cache


def pair() -> tuple[Ranks, Ranks, Board]:
    board = Board()
    leader, follower = (Ranks(RunGroup(rank, 2, rank, 2, board), timeout=0.1) for rank in (0, 1))
    return leader, follower, board


@pytest.mark.parametrize(("count", "size"), [(7, 3), (2, 3), (0, 2), (9, 1)])
def test_shares_are_neighbours_and_everything_once(count: int, size: int) -> None:
    batches = list(range(count))
    ranks = [Ranks(RunGroup(rank, size, rank, size, Board())) for rank in range(size)]
    shares = [own.share(batches) for own in ranks]
    assert [batch for share in shares for batch in share] == batches
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [ranks[0].share(batches, rank) for rank in range(size)] == shares


def test_the_first_says_what_is_to_be_made_and_hears_what_was_written() -> None:
    leader, follower, _ = pair()
    places = (Place(1, "trunk"), Place(2, "expansion"))
    for chosen in (places, (), places[:1]):
        assert leader.agree(chosen) == chosen
        assert follower.agree(None, places) == chosen
        follower.done(dict.fromkeys(chosen, WRITTEN))
        assert leader.files_of(1, chosen) == dict.fromkeys(chosen, WRITTEN)


def test_what_goes_wrong_at_another_is_said() -> None:
    leader, follower, board = pair()
    with pytest.raises(TrainingError, match=r"^rank 1 heard nothing"):
        follower.agree(None)
    leader.agree([Place(1, "trunk")])
    with pytest.raises(TrainingError, match=r"^process 1 had not written its features 0\.1 s after process 0$"):
        leader.files_of(1, [Place(1, "trunk")])
    follower.failed(UserError("'x.png' cannot be decoded"))
    with pytest.raises(UserError, match=r"^process 1: 'x\.png' cannot be decoded$"):
        leader.files_of(1, [Place(1, "trunk")])
    for said in ('{"files": {}}', '{"files": 3}', '{"files": {"1.trunk": {"bytes": -1}}}'):
        board.values["onward/features/1/1"] = said
        with pytest.raises(TrainingError, match=r"^process 1 did not say which features it has written$"):
            leader.files_of(1, [Place(1, "trunk")])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"places": [{"block": "1/../../../home/user/x", "feature": "trunk"}]}', "did not say which features"),
        ('{"places": [{"block": 1, "feature": "trunk/../../../x"}]}', "did not say which features"),
        ('{"places": 7}', "did not say which features"),
        ('{"places": [{"block": 9, "feature": "trunk"}]}', "asks for features that this evaluation does not measure"),
    ],
)
def test_who_writes_to_the_store_cannot_have_a_rank_write_files_of_other_names(said: str, message: str) -> None:
    _, follower, board = pair()
    board.values["onward/features/1"] = said
    with pytest.raises(TrainingError, match=message):
        follower.agree(None, [Place(1, "trunk")])


@pytest.mark.parametrize("said", ["[]", "7", "{", "null", "[" * 100_000, "\udcff"])
def test_what_is_no_word_of_a_rank_is_waited_out(said: str) -> None:
    """Anybody who reaches the store may have written first."""
    _, follower, board = pair()
    board.values["onward/features/1"] = said
    with pytest.raises(TrainingError, match=r"^rank 1 heard nothing of rank 0 within 0\.1 s, and something"):
        follower.agree(None, [Place(1, "trunk")])


def test_what_a_rank_cannot_do_is_one_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (([], "usage: torchrun"), ([str(tmp_path / "no")], "does not exist")):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_a_process_that_cannot_make_its_part_says_so_to_the_first(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    board = Board()
    follower = Ranks(RunGroup(1, 2, 1, 2, board), timeout=LIMIT)
    leader = Ranks(RunGroup(0, 2, 0, 2, board), timeout=LIMIT)
    context = context_of(small_config(root), tmp_path / "shared", ranks=follower)
    images = context.train_images
    assert leader.agree(tuple(context.places)) == tuple(context.places)
    (root / "train" / "class1" / "9.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"9\.png' cannot be decoded"):
        context.source.get("train", images, context.data, context.places, context.progress)
    with pytest.raises(UserError, match=r"^process 1: .*9\.png' cannot be decoded"):
        leader.files_of(1, context.places)
