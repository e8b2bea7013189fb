"""Tiny data sets in the formats that torchvision reads."""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from pipeline.config import DataConfig
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
