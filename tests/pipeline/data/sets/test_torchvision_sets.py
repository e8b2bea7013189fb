"""The data sets that torchvision reads: opened by its real classes, from tiny files in the real formats."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from pipeline.config import DataConfig
from pipeline.config.data import FOLDERS, DatasetName
from pipeline.data.sets.datasets import ImageDataset, Splits, count_classes, open_dataset, open_labelled, preflight
from pipeline.data.sets.mnist_family import IDX_SETS
from pipeline.data.sets.torchvision_sets import TORCHVISION_SETS
from pipeline.errors import ConfigError, UserError
from tests.pipeline.data.sets.torchvision_files import (
    Write,
    data,
    pixels,
    write_aircraft,
    write_caltech101,
    write_caltech256,
    write_cars,
    write_cifar10,
    write_class_folders,
    write_dtd,
    write_fer2013,
    write_flowers,
    write_food101,
    write_gtsrb,
    write_imagenette,
    write_pets,
    write_places,
    write_qmnist,
    write_semeion,
    write_sst2,
    write_stl10,
    write_sun397,
    write_svhn,
    write_usps,
)


@pytest.fixture
def any_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes files whatever their MD5: tiny ones cannot have the published one."""

    def exists(path: str, md5: str | None = None) -> bool:
        return Path(path).is_file()

    for module in ("cifar", "stl10", "svhn", "semeion", "flowers102", "places365", "fer2013", "mnist"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", exists)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_the_arguments_are_those_that_torchvision_takes(name: str) -> None:
    known = TORCHVISION_SETS[name]
    kind = getattr(torchvision.datasets, known.kind)
    for part in [*known.parts, *([known.test] if known.test else [])]:
        arguments = known.arguments("/root", part, False)
        bound = inspect.signature(kind).bind(**arguments)
        taken = set(inspect.signature(kind).parameters)
        if "kwargs" not in taken:
            assert set(bound.arguments) <= taken
    if known.reader == "loader":
        assert "loader" in inspect.signature(kind).parameters
    downloads = "download" in inspect.signature(kind).parameters or "kwargs" in inspect.signature(kind).parameters
    assert downloads >= known.downloads


def test_every_name_is_read_somewhere() -> None:
    assert {*get_args(DatasetName)} == {*TORCHVISION_SETS, *IDX_SETS, *FOLDERS, "fashion_mnist_10k", "packed"}


@pytest.mark.usefixtures("any_digest")
@pytest.mark.parametrize(
    ("name", "write", "shape", "labels", "test_count"),
    [
        ("stl10", write_stl10, (96, 96, 3), [9, 0, 6], 2),
        ("svhn", write_svhn, (32, 32, 3), [0, 1, 7], 2),
        ("cifar10", write_cifar10, (32, 32, 3), [9, 3] * 5, 2),
        ("usps", write_usps, (16, 16), [9, 2], 2),
        ("semeion", write_semeion, (16, 16), [4, 0], None),
        ("qmnist", write_qmnist, (28, 28), [5, 0, 9], 3),
        ("fer2013", write_fer2013, (48, 48), [3, 6], 1),
    ],
)
def test_sets_of_arrays(
    tmp_path: Path, name: str, write: Write, shape: tuple[int, ...], labels: list[int], test_count: int | None
) -> None:
    write(tmp_path)
    given = data(name, tmp_path)
    train = open_dataset(given, "train")
    assert train.labels.tolist() == labels
    assert train.labels.dtype == np.int64
    known = TORCHVISION_SETS[name]
    reference = getattr(torchvision.datasets, known.kind)(
        **known.arguments(str(tmp_path), next(iter(known.parts)), False)
    )
    for index in range(len(labels)):
        assert train.pixels(index).shape == shape
        assert train.pixels(index).flags.c_contiguous
        np.testing.assert_array_equal(train.pixels(index), np.asarray(reference[index][0]))
        np.testing.assert_array_equal(train.pixels(index), np.asarray(train.image(index)))
    assert train.name_of(1) == f"{name}/train[1]"
    assert count_classes(Splits(given)) == train.num_classes == known.classes
    assert preflight(Splits(given)) == next(iter(known.parts.values()))
    if test_count is None:
        with pytest.raises(UserError, match=f"{name} has no test images"):
            open_dataset(given, "test")
    else:
        assert len(open_dataset(given, "test")) == test_count


@pytest.mark.usefixtures("any_digest")
def test_stl10_without_labels_is_probed_on_its_labelled_part(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    given = data("stl10", tmp_path, split="unlabeled")
    images = open_dataset(given, "train")
    assert (len(images), images.num_classes, set(images.labels.tolist())) == (4, 0, {-1})
    assert (preflight(Splits(given)), count_classes(Splits(given))) == (100_000, 0)
    assert len(open_dataset(data("stl10", tmp_path, split="train+unlabeled"), "train")) == 7
    assert open_labelled(given, "train").labels.tolist() == [9, 0, 6]
    assert len(open_labelled(given, "test")) == 2
    for check in (lambda d: preflight(Splits(d)), lambda d: open_dataset(d, "train")):
        with pytest.raises(
            ConfigError, match=r"data\.split: stl10 has no .*'all'. Allowed: train, unlabeled, train\+unl"
        ):
            check(data("stl10", tmp_path, split="all"))


@pytest.mark.usefixtures("any_digest")
def test_svhn_has_an_extra_part(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    assert open_dataset(data("svhn", tmp_path, split="extra"), "train").labels.tolist() == [0, 1, 7, 2]
    assert preflight(Splits(data("svhn", tmp_path, split="extra"))) == 531_131


def assert_reads_what_torchvision_reads(found: ImageDataset, name: str, root: Path, part: str) -> None:
    """As a set: the order of some of torchvision's lists is that of the file system."""
    known = TORCHVISION_SETS[name]
    arguments = {k: v for k, v in known.arguments(str(root), part, False).items() if k != "loader"}
    reference = getattr(torchvision.datasets, known.kind)(**arguments)

    def summary(pictures: Any, label: int) -> tuple[str, int]:
        return hashlib.sha256(np.asarray(pictures).tobytes()).hexdigest(), label

    expected = [reference[i] for i in range(len(reference))]
    assert sorted(summary(*item) for item in expected) == sorted(
        summary(found.pixels(i), found.label(i)) for i in range(len(found))
    )
    names = [found.name_of(i) for i in range(len(found))]
    assert names == sorted(names)
    assert all(Path(path).is_file() for path in names)


@pytest.mark.usefixtures("any_digest")
@pytest.mark.parametrize(
    ("name", "write", "labels"),
    [
        ("gtsrb", write_gtsrb, [0, 1]),
        ("dtd", write_dtd, [0, 1]),
        ("food101", write_food101, [0, 1]),
        ("fgvc_aircraft", write_aircraft, [1, 0]),
        ("flowers102", write_flowers, [101, 0]),
        ("oxford_iiit_pet", write_pets, [0, 36]),
        ("stanford_cars", write_cars, [0, 195]),
        ("sun397", write_sun397, [0, 1]),
        ("eurosat", write_class_folders("eurosat/2750"), [0, 1]),
        ("country211", write_class_folders("country211/train", "country211/valid", "country211/test"), [0, 1]),
        ("rendered_sst2", write_sst2, [0, 1]),
        ("imagenette", write_imagenette, [0, 1]),
        ("places365", write_places, [0, 1]),
        ("places365_small", write_places, [0, 1]),
        ("caltech101", write_caltech101, [0, 1]),
        ("caltech256", write_caltech256, [0, 1]),
    ],
)
def test_sets_of_files(tmp_path: Path, name: str, write: Write, labels: list[int]) -> None:
    write(tmp_path)
    given = data(name, tmp_path)
    train = open_dataset(given, "train")
    known = TORCHVISION_SETS[name]
    assert train.labels.tolist() == labels
    assert train.num_classes == count_classes(Splits(given)) == known.classes
    assert preflight(Splits(given)) == next(iter(known.parts.values()))
    assert_reads_what_torchvision_reads(train, name, tmp_path, next(iter(known.parts)))
    if known.test is not None:
        assert_reads_what_torchvision_reads(open_dataset(given, "test"), name, tmp_path, known.test)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_a_missing_set_says_where_it_was_looked_for_and_what_to_do(name: str, tmp_path: Path) -> None:
    remedy = "data.download=true" if TORCHVISION_SETS[name].downloads else "torchvision cannot download it"
    for check in (lambda: preflight(Splits(data(name, tmp_path))), lambda: open_dataset(data(name, tmp_path), "train")):
        with pytest.raises(UserError, match=rf"'{tmp_path}' holds no {name}: '{tmp_path}/.+' is missing\. .*{remedy}"):
            check()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=rf"data\.root: {name} needs "):
        preflight(Splits(DataConfig(name=name)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "write"), [("stl10", write_stl10), ("svhn", write_svhn), ("cifar10", write_cifar10)])
def test_digests_are_compared(name: str, write: Write, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"torchvision could not read .* \(Dataset not found or corrupted"):
        open_dataset(data(name, tmp_path), "train")


@pytest.mark.usefixtures("any_digest")
def test_labels_that_cannot_be(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": pixels(32, 32, 3, 2), "y": np.asarray([[77], [1]])})
    with pytest.raises(UserError, match=r"holds labels from 1 to 77, and svhn has 10 classes"):
        open_dataset(data("svhn", tmp_path), "train")


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_digest: None) -> None:
    write_svhn(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"torchvision needs the package 'scipy.io'.*Install it with pip"):
        open_dataset(data("svhn", tmp_path), "train")


@pytest.mark.parametrize("name", ["fashion_mnist_10k", "cifar10", "mnist", "eurosat"])
def test_sets_with_one_training_part(name: str, tmp_path: Path) -> None:
    for check in (lambda d: preflight(Splits(d)), lambda d: open_dataset(d, "train")):
        with pytest.raises(ConfigError, match=rf"data\.split: {name} has "):
            check(data(name, tmp_path, split="extra"))


def test_imagenet_is_an_image_folder(tmp_path: Path) -> None:
    write_class_folders("train", "val")(tmp_path)
    assert open_dataset(data("imagenet", tmp_path), "train").labels.tolist() == [0, 1]


@pytest.mark.processes
def test_preflight_needs_no_torch(tmp_path: Path) -> None:
    write_gtsrb(tmp_path)
    code = (
        "import sys; from pipeline.config import DataConfig; "
        "from pipeline.data.sets.datasets import Splits, count_classes, preflight; "
        f"data = DataConfig(name='gtsrb', root={str(tmp_path)!r}); "
        "splits = Splits(data); "
        "print(preflight(splits), count_classes(splits), 'torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.split() == ["26640", "43", "False", "False"], done.stderr


@pytest.mark.usefixtures("any_digest")
def test_what_is_missing_is_downloaded_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torchvision's own code, up to the function that would go to the network."""
    asked: list[str] = []

    def fetch(url: str, download_root: str, **_: object) -> None:
        asked.append(url)
        write_class_folders("2750")(Path(download_root))

    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", fetch)
    given = data("eurosat", tmp_path, download=True)
    assert preflight(Splits(given)) == 27_000
    assert asked == []  # checking fetches nothing
    assert len(open_dataset(given, "train")) == 2
    assert len(open_dataset(given, "train")) == 2
    assert len(asked) == 1
    assert asked[0].endswith("EuroSAT.zip")


@pytest.mark.parametrize("name", ["mnist", "eurosat"])
def test_a_download_that_fails_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise RuntimeError("no network\nand much more")

    module = "mnist" if name == "mnist" else name
    monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fetch)
    with pytest.raises(
        UserError, match=r"torchvision could not read or download .*\. Check the network and the folder"
    ):
        open_dataset(data(name, tmp_path, download=True), "train")
