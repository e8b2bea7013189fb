"""Features of whole data sets: the same bits whoever computes them, kept on disk, and never believed unseen."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import Config
from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.features import embed
from pipeline.stage.stage import Stage
from tests.workers.evaluating.evaluating_runs import (
    CPU,
    SIZE,
    TEST,
    TRAIN,
    context_of,
    image_folder,
    network,
    small_config,
)
from workers.evaluating.context import Context
from workers.evaluating.feature_source import FeatureSource

pytestmark = pytest.mark.long

PLACES = [Place(1, "trunk"), Place(1, "expansion"), Place(2, "trunk"), Place(2, "expansion")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of every batch that goes through the network, and where embeddings are taken."""
    seen: list[tuple[int, ...]] = []

    def counted(stages: list[Stage], images: torch.Tensor, places: Collection[Place]) -> dict[Place, torch.Tensor]:
        seen.append(tuple(images.shape))
        return embed(stages, images, places)

    monkeypatch.setattr("workers.evaluating.extraction.embed", counted)
    return seen


def equal(one: FeatureSet, other: FeatureSet) -> bool:
    return one.features.keys() == other.features.keys() and all(
        torch.equal(one.features[place], other.features[place]) for place in one.features
    )


def entry(folder: Path) -> Path:
    """The one folder that is there, of one set of features."""
    (found,) = folder.iterdir()
    return found


def test_all_places_come_from_one_pass(root: Path, forwards: list[tuple[int, ...]]) -> None:
    context = context_of(small_config(root))
    assert list(context.train.features) == PLACES
    assert sorted(forwards) == sorted([(4, SIZE, SIZE, 3)] * 5 + [(2, SIZE, SIZE, 3)])
    assert [tuple(rows.shape) for rows in context.train.features.values()] == [
        (TRAIN, 8),
        (TRAIN, 8),
        (TRAIN, 32),
        (TRAIN, 8),
    ]
    assert len(context.test) == TEST
    assert context.train.labels.tolist() == [0] * 11 + [1] * 11
    whole = np.stack([context.view(context.train_images.image(i)) for i in range(TRAIN)])
    by_hand = [context.embed(whole[first : first + 4], PLACES) for first in range(0, TRAIN, 4)]
    for place, rows in context.train.features.items():
        assert torch.equal(rows, torch.cat([batch[place] for batch in by_hand]))


@pytest.mark.parametrize("change", [{"workers": 1}, {"workers": 7}, {"cache": False}])
def test_neither_threads_nor_the_cache_change_a_bit(root: Path, tmp_path: Path, change: dict[str, object]) -> None:
    assert equal(context_of(small_config(root, **change), tmp_path).train, context_of(small_config(root)).train)


def test_where_modules_compute_outside_of_threads_the_bits_are_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.evaluating.extraction.CHUNK", 3)
    context = context_of(small_config(root))
    context.source.extractor._computes_in_threads = False
    assert equal(context.train, context_of(small_config(root)).train)


def test_features_are_kept_and_mapped(root: Path, tmp_path: Path, forwards: list[tuple[int, ...]]) -> None:
    first = context_of(small_config(root), tmp_path).train
    assert {path.name for path in entry(tmp_path).iterdir()} == {
        "features.json",
        *(f"{p.key}.safetensors" for p in PLACES),
    }
    forwards.clear()
    again = context_of(small_config(root), tmp_path)
    assert equal(again.train, first)
    assert torch.equal(again.train.labels, first.labels)
    assert not forwards


def test_only_places_that_are_not_kept_are_made(root: Path, tmp_path: Path, forwards: list[tuple[int, ...]]) -> None:
    trunks = context_of(small_config(root, places=["trunk"]), tmp_path)
    assert list(trunks.train.features) == [PLACES[0], PLACES[2]]
    stamps = {path.name: path.stat().st_mtime_ns for path in entry(tmp_path).glob("*.safetensors")}
    assert equal(context_of(small_config(root), tmp_path).train, context_of(small_config(root)).train)
    assert {path.name: path.stat().st_mtime_ns for path in entry(tmp_path).glob("*trunk*")} == stamps
    assert len(json.loads((entry(tmp_path) / "features.json").read_text())["files"]) == 4


def test_what_features_depend_on_names_their_folder(root: Path, tmp_path: Path) -> None:
    def folders(config: Config, stages: list[Stage] | None = None, split: str = "train") -> set[str]:
        context = context_of(config, tmp_path)
        source = FeatureSource(config, stages or network(config), CPU, tmp_path)
        images = context.train_images if split == "train" else context.test_images
        source.get(split, images, config.data, [PLACES[0]], lambda *how_far: None)
        return {path.name for path in tmp_path.iterdir()}

    config = small_config(root)
    seen = [folders(config), folders(config, split="test"), folders(config, network(config, seed=1))]
    for change in ({"image_size": 20}, {"eval_interpolation": "bicubic"}, {"mean": (0.1, 0.1, 0.1)}):
        seen.append(folders(config.model_copy(update={"data": config.data.model_copy(update=change)})))
    seen.append(folders(small_config(root, batch_size=5)))
    assert [len(names) for names in seen] == list(range(1, 8))
    assert folders(small_config(root, workers=1, seed=5, mlp=True)) == seen[-1]


def test_other_images_are_other_features(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    first = context_of(small_config(folder), tmp_path / "kept").train
    (folder / "train" / "class0" / "0.png").write_bytes((folder / "train" / "class1" / "1.png").read_bytes())
    other = context_of(small_config(folder), tmp_path / "kept").train
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert not torch.equal(first.features[PLACES[0]][0], other.features[PLACES[0]][0])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def nan_with_its_digest(path: Path) -> None:
    """Damage that no digest shows: the index was written for it."""
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32("nan").tobytes()
    path.write_bytes(data)
    index = json.loads((path.parent / "features.json").read_text())
    index["files"][path.name.removesuffix(".safetensors")]["sha256"] = hashlib.sha256(data).hexdigest()
    (path.parent / "features.json").write_text(json.dumps(index))


def other_index(path: Path) -> None:
    index = json.loads((path.parent / "features.json").read_text())
    index["what"]["batch_size"] = 99
    (path.parent / "features.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, r"2\.trunk\.safetensors' is damaged: its digest is another\. The features of block 2 trunk are made"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), r"has \d+ bytes and should have \d+\. The features"),
        (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)\. The features of block 2 trunk"),
        (nan_with_its_digest, r"holds NaN or infinity\. The features of block 2 trunk"),
        (other_index, r"features\.json' cannot be used \(it is of other features\)"),
        (lambda path: (path.parent / "features.json").write_text("{"), r"features\.json' cannot be used"),
        (lambda path: (path.parent / "features.json").write_text("[" * 100_000), r"features\.json' cannot be used"),
    ],
    ids=["bit", "short", "gone", "nan", "other index", "half an index", "deep index"],
)
def test_what_is_damaged_is_said_and_made_again(
    root: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    notes: list[str] = []
    first = context_of(small_config(root), tmp_path).train
    whole = [rows.clone() for rows in first.features.values()]
    damage(entry(tmp_path) / "2.trunk.safetensors")
    again = context_of(small_config(root), tmp_path, notes).train
    assert all(torch.equal(rows, kept) for rows, kept in zip(again.features.values(), whole, strict=True))
    assert len(notes) == 1, notes
    assert re.search(message, notes[0]), notes
    notes.clear()
    context_of(small_config(root), tmp_path, notes).train  # noqa: B018 - reads what was made again
    assert not notes


def test_a_full_disk_is_no_end(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    notes: list[str] = []
    found = context_of(small_config(root), tmp_path, notes).train
    assert equal(found, context_of(small_config(root)).train)
    assert len(notes) == 1
    assert "(No space left on device): the evaluation goes on without" in notes[0]
    assert not list(entry(tmp_path).iterdir())


def test_a_disk_that_fails_later_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, target: Path) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(UserError, match=r"trunk\.safetensors' cannot be written \(Input/output error\)\. Make room"):
        context_of(small_config(root), tmp_path).train  # noqa: B018
    assert not list(entry(tmp_path).iterdir())


def test_nothing_is_left_without_the_cache(root: Path, tmp_path: Path) -> None:
    context = context_of(small_config(root, cache=False), tmp_path / "kept")
    assert len(context.train) == TRAIN
    assert not (tmp_path / "kept").exists()


def diverged(config: Config) -> Context:
    context = context_of(config)
    with torch.no_grad():
        next(context.stages[1].block.parameters()).fill_(float("nan"))
    return context


def test_features_that_are_not_finite_are_refused_and_the_blocks_before_are_not(root: Path) -> None:
    with pytest.raises(UserError, match=r"^the features of block 2 trunk hold NaN .*evaluation\.checkpoint=STEPS"):
        diverged(small_config(root)).train  # noqa: B018
    assert list(diverged(small_config(root, blocks=[1])).train.features) == PLACES[:2]
    with pytest.raises(UserError, match=r"^the features of block 2 trunk hold NaN"):
        diverged(small_config(root)).embed(np.zeros((2, SIZE, SIZE, 3), np.uint8), PLACES)
    with pytest.raises(UserError, match=r"^the features of block 2 trunk hold NaN"):
        list(diverged(small_config(root)).augmented_epoch(0))


def test_augmented_epochs_are_keyed_by_seed_epoch_and_image(root: Path) -> None:
    def epoch(number: int, **settings: object) -> list[tuple[dict[Place, torch.Tensor], torch.Tensor]]:
        return list(context_of(small_config(root, **settings)).augmented_epoch(number, 5))

    def rows(batches: list[tuple[dict[Place, torch.Tensor], torch.Tensor]]) -> torch.Tensor:
        return torch.cat([features[PLACES[2]] for features, _ in batches])

    first = epoch(0)
    assert [len(labels) for _, labels in first] == [5, 5, 5, 5, 2]
    labels = torch.cat([part for _, part in first])
    assert sorted(labels.tolist()) == [0] * 11 + [1] * 11
    assert labels.tolist() != sorted(labels.tolist())
    assert torch.equal(rows(first), rows(epoch(0, workers=1)))
    for other in (epoch(1), epoch(0, seed=1)):
        shared = (rows(first).unsqueeze(1) == rows(other)).all(dim=2)
        assert not shared.any(), "the same crop of an image, and not only another order"
    plain = context_of(small_config(root)).train.features[PLACES[2]]
    assert not any(torch.equal(row, plain[0]) for row in rows(first))


def test_a_transform_is_given_the_view_and_the_number_of_the_image(root: Path) -> None:
    context = context_of(small_config(root))

    def blackened(view: np.ndarray, index: int) -> np.ndarray:
        assert view.shape == (SIZE, SIZE, 3)
        return np.zeros_like(view) if index == 3 else view

    found = context.features_of(context.train_images, blackened, PLACES[:1])
    same = (found.features[PLACES[0]] == context.train.features[PLACES[0]]).all(dim=1)
    assert (~same).nonzero().flatten().tolist() == [3]
