"""The data sets that torchvision reads: opened by its real classes, from tiny files in the real formats."""

from __future__ import annotations

import bz2
import hashlib
import inspect
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.io
import torchvision.datasets
from PIL import Image

from pipeline.config import DataConfig
from pipeline.config.data import FOLDERS, DatasetName
from pipeline.data.sets.datasets import ImageDataset, count_classes, open_dataset, open_labelled, preflight
from pipeline.data.sets.mnist_family import IDX_SETS
from pipeline.data.sets.torchvision_sets import TORCHVISION_SETS
from pipeline.errors import ConfigError, UserError
from tests.pipeline.data.sets.test_datasets import idx_bytes

Write = Callable[[Path], None]
rng = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(9, 12, 3)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def data(name: str, root: Path, **keys: object) -> DataConfig:
    return DataConfig(name=name, root=str(root), batch_size=2, **keys)  # type: ignore[arg-type]


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


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", 3), ("test", 2), ("unlabeled", 4)):
        (folder / f"{part}_X.bin").write_bytes(pixels(count, 3, 96, 96).tobytes())
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes(bytes([10, 1, 7][:count]))


def write_svhn(root: Path) -> None:
    for part, count in (("train", 3), ("test", 2), ("extra", 4)):
        labels = np.asarray([[10], [1], [7], [2]][:count], np.uint8)
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": pixels(32, 32, 3, count), "y": labels})


def write_cifar10(root: Path) -> None:
    """CIFAR is published as pickles, which torchvision reads once their digest is right."""
    import pickle  # noqa: TID251

    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels(2, 3072), "labels": [9, 3]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def write_usps(root: Path) -> None:
    row = " ".join(f"{i}:{i / 256:.3f}" for i in range(1, 257))
    for name in ("usps.bz2", "usps.t.bz2"):
        (root / name).write_bytes(bz2.compress(f"10 {row}\n3 {row}\n".encode()))


def write_semeion(root: Path) -> None:
    rows = [[*rng.integers(0, 2, 256).tolist(), *[int(i == label) for i in range(10)]] for label in (4, 0)]
    text(root / "semeion.data", *(" ".join(map(str, row)) for row in rows))


def write_qmnist(root: Path) -> None:
    folder = root / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        (folder / f"qmnist-{part}-images-idx3-ubyte").write_bytes(idx_bytes(pixels(3, 28, 28)))
        rows = np.asarray([[5, 1, 2, 3, 4, 5, 6, 7], [0] * 8, [9] * 8], ">i4")
        labels = bytes([0, 0, 0x0C, 2]) + struct.pack(">2I", 3, 8) + rows.tobytes()
        (folder / f"qmnist-{part}-labels-idx2-int").write_bytes(labels)


def write_fer2013(root: Path) -> None:
    face = " ".join(["7"] * 48 * 48)
    text(root / "fer2013" / "fer2013.csv", "emotion,pixels,Usage", f"3,{face},Training", f"6,{face},Training",
         f"0,{face},PublicTest")  # fmt: skip


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
    assert count_classes(given) == train.num_classes == known.classes
    assert preflight(given) == next(iter(known.parts.values()))
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
    assert (preflight(given), count_classes(given)) == (100_000, 0)
    assert len(open_dataset(data("stl10", tmp_path, split="train+unlabeled"), "train")) == 7
    assert open_labelled(given, "train").labels.tolist() == [9, 0, 6]
    assert len(open_labelled(given, "test")) == 2
    for check in (preflight, lambda d: open_dataset(d, "train")):
        with pytest.raises(
            ConfigError, match=r"data\.split: stl10 has no .*'all'. Allowed: train, unlabeled, train\+unl"
        ):
            check(data("stl10", tmp_path, split="all"))


@pytest.mark.usefixtures("any_digest")
def test_svhn_has_an_extra_part(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    assert open_dataset(data("svhn", tmp_path, split="extra"), "train").labels.tolist() == [0, 1, 7, 2]
    assert preflight(data("svhn", tmp_path, split="extra")) == 531_131


def write_gtsrb(root: Path) -> None:
    for name in ("00000/a.ppm", "00001/b.ppm"):
        image(root / "gtsrb/GTSRB/Training" / name)
    image(root / "gtsrb/GTSRB/Final_Test/Images/x.ppm")
    text(root / "gtsrb/GT-final_test.csv", "Filename;ClassId", "x.ppm;42")


def write_dtd(root: Path) -> None:
    for name in ("banded/1.jpg", "dotted/2.jpg"):
        image(root / "dtd/dtd/images" / name)
    for part in ("train", "val", "test"):
        text(root / f"dtd/dtd/labels/{part}1.txt", "dotted/2.jpg", "banded/1.jpg")


def write_food101(root: Path) -> None:
    import json

    for name in ("cake/1", "soup/2"):
        image(root / f"food-101/images/{name}.jpg")
    for part in ("train", "test"):
        text(root / f"food-101/meta/{part}.json", json.dumps({"cake": ["cake/1"], "soup": ["soup/2"]}))


def write_aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text(folder / "variants.txt", "707-320", "A380")
    for name in ("11", "22"):
        image(folder / "images" / f"{name}.jpg")
    for part in ("train", "val", "trainval", "test"):
        text(folder / f"images_variant_{part}.txt", "22 707-320", "11 A380")


def write_flowers(root: Path) -> None:
    folder = root / "flowers-102"
    for number in (1, 2, 3):
        image(folder / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.asarray([102, 5, 1])})
    scipy.io.savemat(folder / "setid.mat", {"trnid": np.asarray([3, 1]), "valid": np.asarray([2, 1]),
                                            "tstid": np.asarray([2, 3])})  # fmt: skip


def write_pets(root: Path) -> None:
    for name in ("Birman_1", "pug_7"):
        image(root / f"oxford-iiit-pet/images/{name}.jpg")
    for part in ("trainval", "test"):
        text(root / f"oxford-iiit-pet/annotations/{part}.txt", "pug_7 37 2 25", "Birman_1 1 1 1")


def write_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    kind = [("class", "O"), ("fname", "O")]
    rows = np.array([(196, "2.jpg"), (1, "1.jpg")], dtype=kind)
    for part in ("train", "test"):
        for name in ("1.jpg", "2.jpg"):
            image(folder / f"cars_{part}" / name)
    (folder / "devkit").mkdir()
    scipy.io.savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    scipy.io.savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["a", "b"], dtype=object)})


def write_sun397(root: Path) -> None:
    text(root / "SUN397/ClassName.txt", "/a/abbey", "/b/bar/indoor")
    for name in ("b/bar/indoor/sun_2.jpg", "a/abbey/sun_1.jpg"):
        image(root / "SUN397" / name)


def write_class_folders(*places: str) -> Write:
    def write(root: Path) -> None:
        for place in places:
            for name in ("one", "two"):
                image(root / place / name / "1.jpg")

    return write


def write_sst2(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for name in ("negative", "positive"):
            image(root / "rendered-sst2" / part / name / "1.png")


def write_imagenette(root: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n02102040"):
            image(root / "imagenette2" / part / name / "1.JPEG")


def write_places(root: Path) -> None:
    text(root / "categories_places365.txt", "/a/abbey 0", "/b/bar 1")
    text(root / "places365_train_standard.txt", "/b/bar/2.jpg 1", "/a/abbey/1.jpg 0")
    text(root / "places365_val.txt", "3.jpg 1", "4.jpg 0")
    for folder in ("data_256_standard", "data_large_standard"):
        for name in ("a/abbey/1.jpg", "b/bar/2.jpg"):
            image(root / folder / name)
    for folder in ("val_256", "val_large"):
        for name in ("3.jpg", "4.jpg"):
            image(root / folder / name)


def write_caltech101(root: Path) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    (folder / "BACKGROUND_Google").mkdir(parents=True)
    for name in ("ant", "bass"):
        image(folder / name / "image_0001.jpg")


def write_caltech256(root: Path) -> None:
    for number, name in ((1, "ak47"), (2, "bat")):
        image(root / f"caltech256/256_ObjectCategories/{number:03d}.{name}/{number:03d}_0001.jpg")


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
    assert train.num_classes == count_classes(given) == known.classes
    assert preflight(given) == next(iter(known.parts.values()))
    assert_reads_what_torchvision_reads(train, name, tmp_path, next(iter(known.parts)))
    if known.test is not None:
        assert_reads_what_torchvision_reads(open_dataset(given, "test"), name, tmp_path, known.test)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_a_missing_set_says_where_it_was_looked_for_and_what_to_do(name: str, tmp_path: Path) -> None:
    remedy = "data.download=true" if TORCHVISION_SETS[name].downloads else "torchvision cannot download it"
    for check in (lambda: preflight(data(name, tmp_path)), lambda: open_dataset(data(name, tmp_path), "train")):
        with pytest.raises(UserError, match=rf"'{tmp_path}' holds no {name}: '{tmp_path}/.+' is missing\. .*{remedy}"):
            check()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=rf"data\.root: {name} needs "):
        preflight(DataConfig(name=name))  # type: ignore[arg-type]


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


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_the_family_of_mnist(name: str, tmp_path: Path) -> None:
    folder = tmp_path / IDX_SETS[name].torchvision / "raw"
    folder.mkdir(parents=True)
    images = pixels(3, 28, 28)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.asarray([7, 0, 9], np.uint8)))
    given = data(name, tmp_path)
    assert (preflight(given), count_classes(given)) == (3, 10)
    reference = getattr(torchvision.datasets, IDX_SETS[name].torchvision)(str(tmp_path), train=False)
    test = open_dataset(given, "test")
    for index in range(3):
        np.testing.assert_array_equal(test.pixels(index), np.asarray(reference[index][0]))
        assert test.label(index) == reference[index][1]
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.asarray([7, 10, 9], np.uint8)))
    with pytest.raises(UserError, match=rf"labels from 7 to 10, and {name} has 10 classes"):
        open_dataset(given, "train")
    assert preflight(data(name, tmp_path / "empty", download=True)) == 60_000


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
    assert (preflight(letters), count_classes(letters)) == (2, 26)
    with pytest.raises(ConfigError, match=r"data\.split: emnist has no training part 'numbers'. Allowed: balanced, "):
        preflight(data("emnist", tmp_path, split="numbers"))
    with pytest.raises(UserError, match=r"holds no emnist: neither 'emnist-digits-train-images-idx3-ubyte.gz'"):
        preflight(data("emnist", tmp_path, split="digits"))


@pytest.mark.parametrize("name", ["fashion_mnist_10k", "cifar10", "mnist", "eurosat"])
def test_sets_with_one_training_part(name: str, tmp_path: Path) -> None:
    for check in (preflight, lambda d: open_dataset(d, "train")):
        with pytest.raises(ConfigError, match=rf"data\.split: {name} has "):
            check(data(name, tmp_path, split="extra"))


def test_imagenet_is_an_image_folder(tmp_path: Path) -> None:
    write_class_folders("train", "val")(tmp_path)
    assert open_dataset(data("imagenet", tmp_path), "train").labels.tolist() == [0, 1]


@pytest.mark.processes
def test_preflight_needs_no_torch(tmp_path: Path) -> None:
    write_gtsrb(tmp_path)
    code = (
        "import sys; from pipeline.config import Data; "
        "from pipeline.data.sets.datasets import count_classes, preflight; "
        f"data = Data(name='gtsrb', root={str(tmp_path)!r}); "
        "print(preflight(data), count_classes(data), 'torch' in sys.modules, 'torchvision' in sys.modules)"
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
    assert preflight(given) == 27_000
    assert asked == []  # checking fetches nothing
    assert len(open_dataset(given, "train")) == 2
    assert len(open_dataset(given, "train")) == 2
    assert len(asked) == 1
    assert asked[0].endswith("EuroSAT.zip")


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
