"""LiDAR and its like of the blocks of a network: which numbers there are, what they are of, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import workers.evaluating.quality as module
from pipeline.config.evaluation import QualityConfig
from pipeline.config.places import Place
from pipeline.data.sets.datasets import open_dataset
from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.quality_views import QualityViews
from pipeline.measures.quality import alpha_req, collapse_level, lidar, rankme
from pipeline.serial import build_stages
from tests.pipeline.small import small_config
from workers.evaluating.context import Context
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.quality import measure_quality

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
FEW = {"samples": 12, "views": 5, "ranks": [2, 6]}


def context(folder: Path, quality: dict[str, Any] | None = None, mode: str = "simultaneous", **keys: Any) -> Context:
    """A network of four blocks as it is initialised, on the embedded images."""
    evaluation = {"quality": {**FEW, **(quality or {})}, "batch_size": 7, "cache": False, **keys}
    config = small_config(evaluation=evaluation, mode=mode)
    stages = [stage.eval() for stage in build_stages(config, 1)]
    source = FeatureSource(config, stages, CPU, folder, note=print)
    return Context(config, stages, CPU, folder, source, data=config.data, data_name=config.data.name)


def test_numbers_are_those_of_the_embeddings(tmp_path: Path) -> None:
    found = context(tmp_path)
    records = measure_quality(found)
    places = [Place(block, feature) for block in (1, 2, 3, 4) for feature in ("trunk", "expansion", "projector")]
    metrics = ["lidar", "rankme", "collapse", "alpha", "alpha_r2"]
    assert [(r.place, r.metric) for r in records] == [(place, metric) for place in places for metric in metrics]
    assert {(r.data, r.measure) for r in records} == {("fashion_mnist_10k", "quality")}

    views = QualityViews(found.data, open_dataset(found.data, "train"), QualityConfig(samples=12, views=5), 0)
    # In the batches of the measure: the same bits. A wrong order, batch or divisor changes every number by a percent.
    by_hand = [found.embed(views.make(range(first, min(first + 7, 60))), places) for first in range(0, 60, 7)]
    for place in places:
        values = {r.metric: r.value for r in records if r.place == place}
        rows = torch.cat([batch[place] for batch in by_hand])
        power_law = alpha_req(rows, (2, 6))
        assert values["lidar"] == pytest.approx(lidar(rows.view(12, 5, -1)), rel=1e-7)
        assert values["rankme"] == pytest.approx(rankme(rows), rel=1e-7)
        assert values["alpha"] == pytest.approx(power_law.alpha, rel=1e-7)
        assert values["alpha_r2"] == pytest.approx(power_law.r2, rel=1e-7)
        assert values["collapse"] == pytest.approx(collapse_level(rows), rel=1e-7)
        spectrum = found.spectra[place.key]
        assert spectrum == sorted(spectrum, reverse=True)
        assert sum(spectrum) == pytest.approx(rows.double().var(dim=0).sum().item(), rel=1e-7)


def test_numbers_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    assert measure_quality(context(tmp_path, workers=1)) == measure_quality(context(tmp_path, workers=3))


def test_numbers_depend_on_the_seed_and_hardly_on_the_batches(tmp_path: Path) -> None:
    first, other, same = (measure_quality(context(tmp_path, **keys)) for keys in ({}, {"seed": 1}, {"batch_size": 500}))
    assert all(a.value != b.value for a, b in zip(first, other, strict=True) if a.metric == "lidar")
    # Other batches round otherwise, by 4e-7 at the most; other views change every number by 2e-4 at the least.
    assert [r.value for r in first] == pytest.approx([r.value for r in same], rel=1e-5)


def test_constants_reach_the_measures(tmp_path: Path) -> None:
    def values(**quality: Any) -> dict[str, float]:
        records = measure_quality(context(tmp_path, {"places": ["projector"], **quality}, blocks=(4,)))
        return {r.metric: r.value for r in records}

    usual = values()
    changed = {"delta": {"lidar"}, "epsilon": {"lidar", "rankme"}, "ranks": {"alpha", "alpha_r2"}}
    for key, value in {"delta": 1.0, "epsilon": 1e-2, "ranks": [1, 9]}.items():
        found = values(**{key: value})
        assert {metric for metric in usual if found[metric] != usual[metric]} == changed[key]


def test_places_and_blocks_that_are_asked_for(tmp_path: Path) -> None:
    few = measure_quality(context(tmp_path, {"places": ["projector", "projector"]}, blocks=(2, 4)))
    assert list(dict.fromkeys(r.place for r in few)) == [Place(2, "projector"), Place(4, "projector")]
    assert len(few) == 10
    assert measure_quality(context(tmp_path, {"enabled": False})) == []
    headless = measure_quality(context(tmp_path, {"places": ["projector"]}, mode="end_to_end"))
    assert {r.block for r in headless} == {4}
    assert measure_quality(context(tmp_path, {"places": ["projector"]}, mode="end_to_end", blocks=(1,))) == []


def test_too_few_dimensions_for_a_power_law(tmp_path: Path) -> None:
    found, notes = context(tmp_path, {"ranks": [8, 100]}), []
    found.note = notes.append
    records = measure_quality(found)
    without = {r.place for r in records} - {r.place for r in records if r.metric == "alpha"}
    assert without == {Place(1, "trunk")}  # 8 wide; all others are wider
    assert notes == ["no alpha-ReQ of block 1 trunk: fewer dimensions than evaluation.quality.ranks=[8, 100]"]


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    found = context(tmp_path)
    with torch.no_grad():
        next(found.stages[2].head.projector.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="block 3 projector"):
        measure_quality(found)


def test_a_collapsed_network(tmp_path: Path) -> None:
    found = context(tmp_path, {"places": ["trunk"]})
    with torch.no_grad():
        for parameter in found.stages[0].block.parameters():
            parameter.zero_()
    values = {r.metric: r.value for r in measure_quality(found) if r.block == 1}
    assert values == {"lidar": 1.0, "rankme": 1.0, "collapse": 0.0, "alpha": 0.0, "alpha_r2": 0.0}


@pytest.mark.parametrize(("key", "value"), [("samples", 1), ("views", 1), ("ranks", [6, 6]), ("ranks", [0, 6])])
def test_settings_that_measure_nothing(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"evaluation\.quality\.{key}"):
        small_config(evaluation={"quality": {key: value}})


class Few:
    """The first images of a data set."""

    def __init__(self, images: Any) -> None:
        self._images = images

    def __len__(self) -> int:
        return 30

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)


def test_more_images_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = context(tmp_path, {"samples": 10_001, "places": ["trunk"]})
    notes: list[str] = []
    monkeypatch.setattr(found, "note", notes.append)
    monkeypatch.setattr(found, "trained_images", Few(found.trained_images))
    few = {(r.place, r.metric): r.value for r in measure_quality(found)}
    assert notes[0] == "quality on all 30 training images: evaluation.quality.samples=10001 is more"
    exact = context(tmp_path, {"samples": 30, "places": ["trunk"]})
    monkeypatch.setattr(exact, "trained_images", Few(exact.trained_images))
    assert few == {(r.place, r.metric): r.value for r in measure_quality(exact)}


def test_embeddings_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 50_000)
    expected = r"^evaluation.quality.samples: .*60 views at 12 places.* take 0\.0 GB.*Give fewer"
    with pytest.raises(ConfigError, match=expected):
        measure_quality(context(tmp_path))


def test_a_device_without_room_leaves_it_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = measure_quality(context(tmp_path, blocks=(1,)))
    calls: list[int] = []
    original: Callable[..., Any] = module._measures_of

    def without_room(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError
        return original(*arguments)

    monkeypatch.setattr(module, "_measures_of", without_room)
    assert measure_quality(context(tmp_path, blocks=(1,))) == expected
