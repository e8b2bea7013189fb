"""Errors on corrupted images, computed or read from disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import workers.evaluating.robustness as module
from pipeline.config.places import Place
from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.corruptions.corrupt import corrupt
from pipeline.evaluation.corruptions.names import STANDARD
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from pipeline.measures.linear import fit_linear_probe
from tests.workers.evaluating.guessed_classes import SIDE, TEST, TWO, context, images, save
from workers.evaluating.context import Context
from workers.evaluating.robustness import measure_corruptions, plan_corruptions
from workers.run.files import write_json

pytestmark = pytest.mark.long

PAIRS = [("gaussian_noise", 2), ("gaussian_noise", 5), ("contrast", 2), ("contrast", 5)]


def by_hand(found: Context, place: Place, transform: Any) -> float:
    """The error of a probe at one place, on the test images after `transform(view, index)`."""
    classifier = fit_linear_probe(found.train.features[place], found.train.labels)
    test = found.test_images
    views = [transform(found.view(test.image(index)), index) for index in range(len(test))]
    batches = [np.stack(views[start : start + 7]) for start in range(0, len(views), 7)]
    features = torch.cat([found.embed(batch, [place])[place] for batch in batches])
    predicted = classifier.classify(features)
    return float((predicted.numpy() != test.labels).mean())


def values(records: list[Record], place: Place) -> dict[tuple[str, str], float]:
    return {(r.measure, r.metric): r.value for r in records if r.place == place}


def test_errors_are_those_of_a_probe_fitted_on_clean_images(tmp_path: Path) -> None:
    found = context(images(tmp_path))
    records = measure_corruptions(found)
    places = [Place(block, feature) for block in (1, 2, 3, 4) for feature in ("trunk", "expansion")]
    assert list(dict.fromkeys(r.place for r in records)) == places
    assert {r.data for r in records} == {"image_folder"}
    for place in (Place(1, "trunk"), Place(3, "expansion"), Place(4, "trunk")):
        own = values(records, place)
        assert own["corruption/clean", "error"] == by_hand(found, place, lambda view, _: view)
        errors = {}
        for name, severity in PAIRS:
            errors[name, severity] = by_hand(
                found, place, lambda view, index, n=name, s=severity: corrupt(view, n, s, 0, index)
            )
            assert own[f"corruption/{name}/{severity}", "error"] == errors[name, severity]
        assert own["corruption/contrast", "error"] == pytest.approx((errors[PAIRS[2]] + errors[PAIRS[3]]) / 2)
        assert own["corruption/mean", "error"] == pytest.approx(sum(errors.values()) / 4)
        assert len(own) == 1 + 4 + 2 + 1
    assert len({r.value for r in records}) > 5  # the errors differ, or equal ones would prove nothing
    assert found.corruptions == {
        "names": ["gaussian_noise", "contrast"],
        "severities": [2, 5],
        "images": "computed with the parameters of cifar10-c",
        "baseline": None,
    }


def test_each_image_is_decoded_once_for_all_corruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = context(images(tmp_path), blocks=(1,))
    _ = found.train, found.test
    seen: list[int] = []
    whole = module._clean_view

    def counted(context: Context, images: Any, index: int) -> NDArray[np.uint8]:
        seen.append(index)
        return whole(context, images, index)

    monkeypatch.setattr(module, "_clean_view", counted)
    measure_corruptions(found)
    assert sorted(seen) == list(range(TEST))


def test_numbers_do_not_depend_on_threads_and_depend_on_the_seed(tmp_path: Path) -> None:
    root = images(tmp_path)
    noise = {"names": ["gaussian_noise", "spatter", "frost"], "severities": [5]}
    first, threaded, other = (
        measure_corruptions(context(root, noise, blocks=(2,), **keys)) for keys in ({}, {"workers": 4}, {"seed": 1})
    )
    assert first == threaded
    assert first != other


def test_a_gray_image_is_corrupted_as_one_and_shown_in_three_channels(tmp_path: Path) -> None:
    found = context(images(tmp_path, gray=True))
    load = module._corrupted_load(found, found.test_images, [("impulse_noise", 5), ("spatter", 5)])
    views = load(range(TEST, TEST + 3))  # the second corruption of the first three images
    assert views.shape == (3, SIDE, SIDE, 3)
    assert (views == views[..., :1]).all()
    for index in range(3):
        clean = found.view(found.test_images.image(index))[:, :, 0]
        np.testing.assert_array_equal(
            views[index, :, :, 1], corrupt(np.ascontiguousarray(clean), "spatter", 5, 0, index)
        )


def test_nothing_is_measured_unless_asked_for(tmp_path: Path) -> None:
    found = context(images(tmp_path), {"names": "none"})
    assert measure_corruptions(found) == []
    assert not found.corruptions


def imagenet_c(root: Path, folder: Path, group: str = "") -> Path:
    """What `context` would compute of `images(root)`, as files."""
    found = context(root)
    for name, severity in PAIRS:
        for index in range(TEST):
            path = Path(found.test_images.name_of(index))
            view = corrupt(found.view(found.test_images.image(index)), name, severity, 0, index)
            save(folder / group / name / str(severity) / path.parent.name / path.name, view)
    return folder


@pytest.mark.parametrize("group", ["", "noise"])
def test_folders_are_read_and_give_the_errors_of_their_images(tmp_path: Path, group: str) -> None:
    root = images(tmp_path / "images")
    folder = imagenet_c(root, tmp_path / "c", group)
    computed, found = (context(root, {**TWO, **more}, blocks=(2,)) for more in ({}, {"folder": str(folder)}))
    assert measure_corruptions(found) == measure_corruptions(computed)
    assert found.corruptions["images"] == str(folder)


def cifar_c(root: Path, folder: Path) -> Path:
    found = context(root)
    folder.mkdir()
    for name in ("gaussian_noise", "contrast"):
        views = [
            corrupt(found.view(found.test_images.image(index)), name, severity, 0, index)
            for severity in (1, 2, 3, 4, 5)
            for index in range(TEST)
        ]
        np.save(folder / f"{name}.npy", np.stack(views))
    np.save(folder / "labels.npy", np.tile(found.test_images.labels, 5).astype(np.uint8))
    return folder


def test_arrays_are_read_and_give_the_errors_of_their_images(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    folder = cifar_c(root, tmp_path / "c")
    found = context(root, {**TWO, "folder": str(folder)}, blocks=(2,))
    assert measure_corruptions(found) == measure_corruptions(context(root, blocks=(2,)))


def test_what_is_missing_in_a_folder_is_named(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    folder = imagenet_c(root, tmp_path / "c")
    wanted = {"names": ["gaussian_noise", "contrast", "fog"], "severities": [2], "folder": str(folder)}
    with pytest.raises(ConfigError, match=rf"^evaluation\.corruptions\.folder: missing: {folder}/fog/2\. ") as caught:
        plan_corruptions(context(root, wanted))
    assert "evaluation.corruptions.names" in str(caught.value)
    everything = {"names": "standard", "folder": str(folder)}
    with pytest.raises(ConfigError, match=r"and 66 more\. "):  # 75 less the 4 that are there, 5 of them named
        plan_corruptions(context(root, everything))
    with pytest.raises(ConfigError, match=r"is not a folder"):
        plan_corruptions(context(root, {**TWO, "folder": str(tmp_path / "nowhere")}))


def test_other_classes_in_a_folder_are_named(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    folder = imagenet_c(root, tmp_path / "c")
    place = folder / "contrast" / "2"
    (place / "bee").rename(place / "wasp")
    with pytest.raises(UserError, match=r"class 'bee' is missing in '.*contrast/2'"):
        measure_corruptions(context(root, {**TWO, "folder": str(folder)}, blocks=(1,)))


def test_damaged_and_wrong_arrays_are_refused(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    folder = cifar_c(root, tmp_path / "c")
    settings = {**TWO, "folder": str(folder)}
    good = np.load(folder / "labels.npy")

    def refused(text: str) -> None:
        with pytest.raises(UserError, match=text):
            measure_corruptions(context(root, settings, blocks=(1,)))

    np.save(folder / "labels.npy", good[:-5])
    refused(r"contrast\.npy' holds 100 images|gaussian_noise\.npy' holds 100 images and '.*labels\.npy' \[95\] labels")
    np.save(folder / "labels.npy", np.where(good == 2, 3, good))
    refused("labels from 0 to 3, and there are 3 classes")
    np.save(folder / "labels.npy", (good + 1) % 3)
    refused("other labels than the test set")
    np.save(folder / "labels.npy", good.astype(float))
    refused("holds float64, and labels are whole numbers")
    np.save(folder / "labels.npy", good)
    np.save(folder / "contrast.npy", np.zeros((100, 16, 16, 3), np.float32))
    refused(r"holds float32 \[100, 16, 16, 3\], and not uint8")
    np.save(folder / "contrast.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused("cannot be read as an array of numpy")
    (folder / "contrast.npy").write_bytes(b"\x93NUMPY")
    refused("cannot be read as an array of numpy")
    (folder / "contrast.npy").unlink()
    refused(rf"missing: {folder}/contrast\.npy")


def document(path: Path, records: list[Record]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    info = DataInfo("image_folder", 60, TEST, 3)
    write_json(
        path / "evaluation.json",
        EvaluationResults(
            run="run",
            checkpoint=None,
            config={},
            run_config_digest="0" * 64,
            seed=0,
            versions={},
            data=info,
            created="",
            results=records,
        ).to_json(),
    )


def test_errors_are_set_in_relation_to_those_of_a_baseline(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    own = measure_corruptions(context(root))
    halved = [replace(r, value=r.value / 2) for r in own if r.place != Place(2, "expansion")]
    document(tmp_path / "base", halved)
    found = context(root, {**TWO, "baseline": str(tmp_path / "base")})
    records = measure_corruptions(found)
    for place in (Place(1, "trunk"), Place(4, "expansion")):
        assert values(records, place)["corruption/contrast", "ce"] == pytest.approx(2)
        assert values(records, place)["corruption/mean", "mce"] == pytest.approx(2)
    assert ("corruption/mean", "mce") not in values(records, Place(2, "expansion"))
    assert [note for note in found.notes if "block 2 expansion" in note]  # type: ignore[attr-defined]
    assert found.corruptions["baseline"] == str(tmp_path / "base")


def test_a_baseline_that_lacks_errors_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path / "images")
    own = measure_corruptions(context(root))
    settings = {**TWO, "baseline": str(tmp_path / "base")}
    with pytest.raises(UserError, match=r"base/evaluation\.json' cannot be read"):
        plan_corruptions(context(root, settings))
    document(tmp_path / "base", [r for r in own if r.measure != "corruption/contrast/2"])
    with pytest.raises(ConfigError, match=r"^evaluation\.corruptions\.baseline: .*no errors of contrast/2 at block 1"):
        plan_corruptions(context(root, settings))
    document(tmp_path / "base", [replace(r, data="cifar10") for r in own])
    with pytest.raises(ConfigError, match=r"no corruption errors of image_folder at any of block 1 trunk"):
        plan_corruptions(context(root, settings))


@pytest.mark.parametrize(
    ("corruptions", "message"),
    [
        ({"names": ["fogg"]}, r"^evaluation\.corruptions\.names: there is no corruption 'fogg'.*Did you mean 'fog'"),
        ({"names": "standard", "severities": []}, r"^evaluation\.corruptions\.severities: "),
    ],
)
def test_settings_are_checked_before_anything_is_measured(
    tmp_path: Path, corruptions: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_corruptions(context(images(tmp_path), corruptions))


def test_standard_is_the_fifteen_of_the_paper(tmp_path: Path) -> None:
    plan = plan_corruptions(context(images(tmp_path), {"names": "standard"}))
    assert plan.names == STANDARD
    assert len(plan.pairs) == 75
