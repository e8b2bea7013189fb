"""MNIST and its relatives: read here, fetched by torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from pipeline.data.sets.datasets import Splits, count_classes, open_dataset, preflight
from pipeline.data.sets.mnist_family import IDX_SETS
from pipeline.errors import ConfigError, UserError
from tests.pipeline.data.sets.test_datasets import idx_bytes
from tests.pipeline.data.sets.torchvision_files import (
    data,
    pixels,
)


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_the_family_of_mnist(name: str, tmp_path: Path) -> None:
    folder = tmp_path / IDX_SETS[name].torchvision / "raw"
    folder.mkdir(parents=True)
    images = pixels(3, 28, 28)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.asarray([7, 0, 9], np.uint8)))
    given = data(name, tmp_path)
    assert (preflight(Splits(given)), count_classes(Splits(given))) == (3, 10)
    reference = getattr(torchvision.datasets, IDX_SETS[name].torchvision)(str(tmp_path), train=False)
    test = open_dataset(given, "test")
    for index in range(3):
        np.testing.assert_array_equal(test.pixels(index), np.asarray(reference[index][0]))
        assert test.label(index) == reference[index][1]
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.asarray([7, 10, 9], np.uint8)))
    with pytest.raises(UserError, match=rf"labels from 7 to 10, and {name} has 10 classes"):
        open_dataset(given, "train")
    assert preflight(Splits(data(name, tmp_path / "empty", download=True))) == 60_000


def test_emnist_has_parts_and_letters_are_counted_from_0(tmp_path: Path) -> None:
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, labels in (("letters", [1, 26]), ("balanced", [0, 46])):
        for split in ("train", "test"):
            (folder / f"emnist-{part}-{split}-images-idx3-ubyte").write_bytes(idx_bytes(pixels(2, 28, 28)))
            (folder / f"emnist-{part}-{split}-labels-idx1-ubyte").write_bytes(idx_bytes(np.asarray(labels, np.uint8)))
    assert open_dataset(data("emnist", tmp_path), "train").labels.tolist() == [0, 46]
    letters = data("emnist", tmp_path, split="letters")
    assert open_dataset(letters, "test").labels.tolist() == [0, 25]
    assert (preflight(Splits(letters)), count_classes(Splits(letters))) == (2, 26)
    with pytest.raises(ConfigError, match=r"data\.split: emnist has no training part 'numbers'. Allowed: balanced, "):
        preflight(Splits(data("emnist", tmp_path, split="numbers")))
    with pytest.raises(UserError, match=r"holds no emnist: neither 'emnist-digits-train-images-idx3-ubyte.gz'"):
        preflight(Splits(data("emnist", tmp_path, split="digits")))


def test_a_member_of_the_mnist_family_is_downloaded_and_then_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        assert len(md5) == 32
        array = np.zeros(2, np.uint8) if "labels" in filename else pixels(2, 28, 28)
        (Path(download_root) / filename.removesuffix(".gz")).write_bytes(idx_bytes(array))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    images = open_dataset(data("kmnist", tmp_path, download=True), "test")
    assert len(images) == 2
    assert (tmp_path / "KMNIST" / "raw" / "t10k-images-idx3-ubyte").is_file()
