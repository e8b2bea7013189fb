"""Reading the data sets, and finding what is wrong with them before anything starts."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from pipeline.config import DataConfig
from pipeline.data.sets import image_folder, unreadable
from pipeline.data.sets.datasets import Splits, open_dataset, preflight
from pipeline.data.sets.idx import read_idx
from pipeline.data.sets.mnist_family import IDX_SETS
from pipeline.errors import ConfigError, UserError

PACKAGE_DATA = files("pipeline") / "data" / "fashion_mnist_10k"


def idx_bytes(array: np.ndarray, element: int = 8) -> bytes:
    return bytes([0, 0, element, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path, compress: bool) -> np.ndarray:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for prefix, part in (("train", images[:4]), ("t10k", images[4:])):
        for kind, array in (("images-idx3", part), ("labels-idx1", np.arange(len(part), dtype=np.uint8))):
            content = idx_bytes(array)
            name = f"{prefix}-{kind}-ubyte" + (".gz" if compress else "")
            (folder / name).write_bytes(gzip.compress(content) if compress else content)
    return images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """root/{train,val}/{cat,dog}/*, several formats and modes, a nested folder and a file that is no image."""
    rng = np.random.default_rng(1)
    for split, per_class in (("train", 4), ("val", 1)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            (folder / "more").mkdir(parents=True)
            for i in range(per_class):
                image = Image.fromarray(rng.integers(0, 256, (30 + label, 40, 3), dtype=np.uint8))
                mode, suffix = (("RGB", "jpg"), ("L", "JPEG"), ("RGBA", "png"), ("P", "png"))[i]
                image.convert(mode).save(folder / ("more" if i == 1 else ".") / f"{i}.{suffix}")
            (folder / "notes.txt").write_text("not an image")
    return tmp_path


def folder_data(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), batch_size=2, **keys)  # type: ignore[arg-type]


def test_the_package_data_is_what_its_notice_says() -> None:
    notice = (PACKAGE_DATA / "NOTICE").read_text()
    stated = [line.split() for line in notice.splitlines() if line.endswith("-ubyte.gz")]
    assert len(stated) == 4
    for digest, name in stated:
        assert hashlib.sha256((PACKAGE_DATA / name).read_bytes()).hexdigest() == digest


def test_fashion_mnist_10k() -> None:
    train, test = (open_dataset(DataConfig(), split) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (10_000, 2_000, 10)
    assert train.labels.dtype == np.int64
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert np.bincount(train.labels).min() > 900
    assert (train.image(0).mode, train.image(0).size) == ("L", (28, 28))
    assert np.asarray(train.image(0)).sum() == 76247  # the first ankle boot of the original release
    assert train.label(3) == 3
    assert train.name_of(17) == "fashion_mnist_10k/train[17]"


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("layout", [".", "FashionMNIST/raw"])
def test_fashion_mnist_from_either_layout(tmp_path: Path, layout: str, compress: bool) -> None:
    images = write_fashion_mnist(tmp_path / "data" / layout, compress)
    data = DataConfig(name="fashion_mnist", root=str(tmp_path / "data"), batch_size=4)
    assert preflight(Splits(data)) == 4
    test = open_dataset(data, "test")
    assert test.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(np.asarray(test.image(1)), images[5])


def test_fashion_mnist_where_the_operating_system_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_fashion_mnist(tmp_path / "datasets", compress=True)
    known = IDX_SETS["fashion_mnist"]
    assert known.system_folder == "/usr/share/datasets/fashion-mnist"  # of Debian's package dataset-fashion-mnist
    monkeypatch.setitem(IDX_SETS, "fashion_mnist", replace(known, system_folder=str(tmp_path / "datasets")))
    data = DataConfig(name="fashion_mnist", batch_size=4)
    assert preflight(Splits(data)) == 4
    np.testing.assert_array_equal(open_dataset(data, "train").pixels(2), images[2])
    with pytest.raises(UserError, match="holds no fashion_mnist"):  # what was named is not replaced by what lies around
        preflight(Splits(data.model_copy(update={"root": str(tmp_path)})))


def test_image_folder_reads_what_torchvision_reads(photos: Path) -> None:
    assert image_folder.EXTENSIONS == IMG_EXTENSIONS
    ours, reference = open_dataset(folder_data(photos), "train"), ImageFolder(str(photos / "train"))
    assert [(ours.name_of(i), ours.label(i)) for i in range(len(ours))] == reference.samples
    assert ours.labels.tolist() == reference.targets
    assert ours.num_classes == 2
    for i in range(len(ours)):
        np.testing.assert_array_equal(np.asarray(ours.image(i).convert("RGB")), np.asarray(reference[i][0]))
    assert {ours.image(i).mode for i in range(len(ours))} == {"RGB", "L"}


def test_image_folder_test_set_and_root_without_train(photos: Path) -> None:
    assert len(open_dataset(folder_data(photos), "test")) == 2
    bare = folder_data(photos / "train")
    assert preflight(Splits(bare)) == 8
    with pytest.raises(UserError, match=r"no test images: there is no folder '.*train/val'"):
        open_dataset(bare, "test")


def test_test_classes_must_be_the_training_classes(photos: Path) -> None:
    (photos / "val" / "cat").rename(photos / "val" / "bird")
    with pytest.raises(UserError, match=r"different classes: 'bird' is in '.*/val' and not in '.*/train'"):
        open_dataset(folder_data(photos), "test")


@pytest.mark.processes
def test_preflight_needs_no_torch(photos: Path) -> None:
    code = (
        "import sys; from pipeline.config import DataConfig; "
        "from pipeline.data.sets.datasets import Splits, preflight; "
        f"folder = DataConfig(name='image_folder', root={str(photos)!r}, batch_size=2); "
        "print(preflight(Splits(DataConfig())), preflight(Splits(folder)), "
        "'torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.split() == ["10000", "8", "False", "False"], done.stderr


@pytest.mark.parametrize("whole_header", [True, False])
def test_preflight_names_the_file_that_cannot_be_decoded(photos: Path, whole_header: bool) -> None:
    victim = photos / "train" / "dog" / "0.jpg"
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2] if whole_header else b"no image at all")
    with pytest.raises(UserError, match=r"image '.*/dog/0\.jpg' cannot be decoded .*Replace or remove"):
        preflight(Splits(folder_data(photos)))
    with pytest.raises(UserError, match=r"dog/0\.jpg"):
        open_dataset(folder_data(photos), "train").image(4)


def test_the_sample_that_is_checked_is_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(unreadable, "IMAGES_DECODED", 4)
    monkeypatch.setattr(unreadable, "HEADERS_CHECKED", 0)
    monkeypatch.setattr(unreadable, "read_image", opened.append)
    unreadable.check_files([str(i) for i in range(10)])
    assert opened == ["0", "2", "5", "7"]


def test_a_deleted_file_is_named(photos: Path) -> None:
    images = open_dataset(folder_data(photos), "train")
    Path(images.name_of(2)).unlink()
    with pytest.raises(UserError, match=rf"image '{images.name_of(2)}' does not exist any more"):
        images.image(2)


def test_folders_that_are_no_data_set(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (tmp_path / "nowhere", r"data\.root '.*nowhere' is not a folder\. Give"),
        (empty, r"folder '.*empty' holds no class folders"),
    ]
    (photos / "train" / "emu").mkdir()
    cases.append((photos, r"class folder '.*train/emu' holds no image\. Add some \(\.jpg.*or remove"))
    for root, message in cases:
        with pytest.raises(UserError, match=message):
            preflight(Splits(folder_data(root)))


def test_val_without_train_is_not_taken_for_classes(photos: Path) -> None:
    (photos / "train").rename(photos / "training")
    with pytest.raises(UserError, match=r"has a folder 'val' but no 'train'"):
        preflight(Splits(folder_data(photos)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_folder", r"data\.root: image_folder needs a folder"),
        ("cifar10", r"data\.root: cifar10 needs .*data\.download=true"),
        ("cifar100", r"data\.root: cifar100 needs .*data\.download=true"),
        ("fashion_mnist", r"data\.root: fashion_mnist needs .*data\.download=true"),
    ],
)
def test_a_root_that_is_needed_and_missing(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IDX_SETS, "fashion_mnist", replace(IDX_SETS["fashion_mnist"], system_folder="/nowhere"))
    data = DataConfig(name=name)  # type: ignore[arg-type]
    for check in (lambda: preflight(Splits(data)), lambda: open_dataset(data, "train")):
        with pytest.raises(ConfigError, match=message):
            check()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_a_root_without_the_data_set(name: str, tmp_path: Path) -> None:
    data = DataConfig(name=name, root=str(tmp_path))  # type: ignore[arg-type]
    for check in (lambda: preflight(Splits(data)), lambda: open_dataset(data, "test")):
        with pytest.raises(UserError, match=rf"'{tmp_path}' holds no .*data\.download=true"):
            check()
    assert preflight(Splits(data.model_copy(update={"download": True}))) in (50_000, 60_000)


def test_cifar_files_with_another_digest_are_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(b"not what was published")
    data = DataConfig(name="cifar10", root=str(tmp_path))
    with pytest.raises(UserError, match=r"torchvision could not read .*corrupted"):
        open_dataset(data, "train")


def test_a_batch_larger_than_the_data_set(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size: a batch of 10001 is more than the 10000 images"):
        preflight(Splits(DataConfig(batch_size=10_001)))


def test_idx_errors(tmp_path: Path) -> None:
    good = idx_bytes(np.zeros((3, 2, 2), np.uint8))
    path = tmp_path / "file"
    cases = [
        (b"\x01" + good[1:], "is not an IDX file"),
        (good[:9], "is not an IDX file"),
        (b"", "is not an IDX file"),
        (idx_bytes(np.zeros((3, 2, 2), np.uint8), element=0x0D), "elements of type 0x0d along 3 axes"),
        (idx_bytes(np.zeros(3, np.uint8)) + bytes(16), "along 1 axes, not unsigned bytes .* along 3"),
        (good[:-1], r"announces 3 x 2 x 2 = 12 bytes and holds 11: .*cut short"),
        (good + b"\0", "holds 13"),
        (gzip.compress(good)[:-12], "is not a whole gzip file"),
        (gzip.compress(good)[:12] + b"\xff" * 30, "is not a whole gzip file"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_idx(path, axes=3)
    with pytest.raises(UserError, match=r"nothing-here' cannot be read \(No such file"):
        read_idx(tmp_path / "nothing-here", axes=3)
    path.write_bytes(gzip.compress(good))
    assert read_idx(path, axes=3).shape == (3, 2, 2)


def test_images_and_labels_that_differ_in_number(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "data", compress=False)
    (tmp_path / "data" / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match=r"holds 4 images but .* 3 labels"):
        preflight(Splits(DataConfig(name="fashion_mnist", root=str(tmp_path / "data"), batch_size=2)))
