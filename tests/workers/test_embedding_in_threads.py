"""Who computes features: several threads, or the one that asks, where the network need not bear several."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.stage.stage import Stage
from tests.pipeline.small import small_config
from workers.evaluating import context
from workers.evaluating.context import Context
from workers.evaluating.extraction import CHUNK, Extractor

CPU = torch.device("cpu")
PLACE = cast(Any, "block 1 trunk")


@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_code_is_run_by_the_thread_that_asks_and_by_no_other(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(evaluation={"workers": 2})
    stage = SimpleNamespace(index=1, config=SimpleNamespace(precision=SimpleNamespace(compile=compiled)))
    extractor = Extractor(config, [cast(Stage, stage)], CPU)
    ran: list[int] = []

    def embed(pixels: NDArray[np.uint8], places: tuple[Any, ...]) -> dict[Any, torch.Tensor]:
        ran.append(threading.get_ident())
        return {place: torch.from_numpy(pixels.astype(np.float32)) for place in places}

    monkeypatch.setattr(extractor, "_embed", embed)
    monkeypatch.setattr(extractor, "_fitting", lambda rows: 2)
    batches = [list(range(CHUNK + 3)), list(range(7))]
    before = torch.get_num_threads()
    try:
        found = list(extractor.run(batches, np.asarray, [PLACE]))
    finally:
        torch.set_num_threads(before)
    assert [batch for batch, _ in found] == batches
    assert [features[PLACE].tolist() for _, features in found] == batches
    assert len(ran) == len(batches)
    assert not compiled or set(ran) == {threading.get_ident()}


@pytest.mark.parametrize(
    ("given", "size", "places"),
    [
        ({}, 64, ("own",)),
        ({"batch_size": 8}, 8, ("own",)),
        ({"places": ["another"]}, 64, ("another",)),
    ],
)
def test_a_pass_over_augmented_images_has_the_batches_and_places_that_were_asked_for(
    given: dict[str, Any], size: int, places: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(context, "augmented_batches", lambda *words: asked.append(words))
    settings = SimpleNamespace(batch_size=64, seed=3)
    of = SimpleNamespace(
        settings=settings, places=["own"], source=SimpleNamespace(extractor="x"), train_images="images", data="data"
    )
    Context.augmented_epoch(cast(Context, of), 5, **given)
    assert asked == [("x", "images", "data", 3, 5, size, tuple(places))]
