"""Every operation that a run asks of CUDA has an entry with a source, and the documents show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config
from pipeline.config.places import Place
from pipeline.data.augment.device_photometrics import Photometrics
from pipeline.evaluation.blocks import FEATURES, score_blocks
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.measures.online import online_measures
from pipeline.replicas import SOLO
from pipeline.stage.stage import Stage
from pipeline.validation.loading import load_config
from tests.documents import PRESETS
from tests.marks import slow
from tests.pipeline.small import batch_of, small_config
from tests.sources import REPOSITORY, text_of
from tests.workers.determinism.fake_cuda import NameRecorder, operations_of
from workers.determinism.operations import OPERATORS, SOURCES, group_of, table, unknown_operations

pytestmark = pytest.mark.long

VIT = {
    "backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_dim": 64,
    "cuts": [],
}  # fmt: skip
GSP = {"head": {"kind": "gsp", "projector": [16, 16]}}
WARM = {"warmup_epochs": 1}
CHOICES: dict[str, dict[str, Any]] = {
    "barlow_twins": {},
    **{kind: {"objective": {"kind": kind}} for kind in ("vicreg", "byol", "simclr", "lejepa", "supervised")},
    "patch": {"objective": {"kind": "simclr", "negatives": "single_patch"}},
    **{
        kind: {"optimizer": {"kind": kind, "clip_norm": 1.0, **WARM}}
        for kind in ("lars", "lars_lr_in_momentum", "lars_clipped", "sgd", "adamw")
    },
    "lsp": {"head": {"kind": "lsp", "projector": [16, 16]}},
    "gsp": GSP,
    "chunk": {"head": {"chunk": 4}},
    **{f"noise {kind}": {"noise": {"kind": kind}} for kind in ("all", "hw", "c", "c_legacy")},
    **{kind: {"precision": {"dtype": kind}} for kind in ("bf16", "fp16")},
    "channels_last": {"precision": {"channels_last": True}},
    **{f"recompute {kind}": {"memory": {"recompute": kind}} for kind in ("units", "views")},
    "end_to_end": {"mode": "end_to_end"},
    "replicas": {"replicas": 2},
    "replicas simclr": {"replicas": 2, "objective": {"kind": "simclr"}},
    "stem": {"model": {"backbone": "resnet18", "width": 8, "stem": "imagenet"}, "data": {"image_size": 32}},
    "vit": {"model": VIT, **GSP},
    "vit bf16": {"model": VIT, **GSP, "precision": {"dtype": "bf16"}},
}
"""Sections over the small configuration: each choice that trains on a GPU."""
OFTEN = {"barlow_twins", "vicreg", "byol", "simclr", "lejepa", "bf16"}
"""Those that `make test` runs."""
SMALL = ("data.batch_size=8", "precision.compile=false", "engine={kind: torch}")
"""Over a preset: what is not asked of the GPU, or has no fake form, taken out."""


@pytest.mark.parametrize("choice", [choice if choice in OFTEN else slow(choice) for choice in CHOICES])
def test_every_operation_of_a_choice_has_an_entry(choice: str) -> None:
    names = operations_of(small_config(**CHOICES[choice]))
    assert unknown_operations(names) == []


def test_the_operations_are_those_of_cuda_forward_and_backward() -> None:
    names = operations_of(small_config(model=VIT, **GSP)) | operations_of(small_config())
    for name in ("cudnn_batch_norm", "convolution", "native_layer_norm", "addmm"):
        assert f"aten.{name}" in names
    for name in ("cudnn_batch_norm_backward", "convolution_backward", "native_layer_norm_backward"):
        assert f"aten.{name}" in names


def test_a_step_on_fake_tensors_asks_for_what_a_real_one_does() -> None:
    """But for batch norm: the backward pass is walked by ourselves, and a node that it left out would show here."""
    config = small_config(objective={"kind": "vicreg"})
    recorder, stage = NameRecorder(), Stage(config, 1, 1)
    with recorder:
        stage(batch_of(config, 0), 0, 0.0)
        stage.update(0)
    missing = recorder.names - operations_of(config)
    assert {name for name in missing if name.endswith("backward")} <= {"aten.native_batch_norm_backward"}


@pytest.mark.parametrize(
    "path", [slow(p, id=p.stem) if "imagenet" in p.stem else pytest.param(p, id=p.stem) for p in PRESETS]
)
def test_every_operation_of_a_preset_has_an_entry(path: Path) -> None:
    config = load_config(path, SMALL)
    sizes = {"replicas": 1, "stages": {}}
    assert unknown_operations(operations_of(config.model_copy(update=sizes))) == []


def beside_the_step(config: Config) -> None:
    """Online measures, the linear probe and augmentation on the device."""
    stage = Stage(config, 1, 4)
    stage.online = online_measures(config, 1, 4, 4, stage.compute, SOLO)
    assert stage.online is not None
    labels = torch.arange(8) % 4
    for step in range(3):
        stage(batch_of(config, step), step, 0.0)
        stage.update(step, labels)
        stage.online.measure(step, labels)
    features = {Place(1, feature): torch.randn(64, 8) for feature in FEATURES}
    score_blocks(FeatureSet(features, torch.arange(64) % 4), FeatureSet(features, torch.arange(64) % 4), None)
    Photometrics(config.data, 2, 0)(batch_of(config, 0), 0, np.arange(8, dtype=np.int64))


def test_every_operation_beside_the_step_has_an_entry() -> None:
    online = {"linear": True, "knn_bank": 64, "knn_k": 4, "quality_every": 1, "quality_samples": 16}
    recorder = NameRecorder()
    with recorder:
        beside_the_step(small_config(evaluation={"online": online}))
    assert {"aten.scatter_add_", "aten.topk", "aten.index_put_"} <= recorder.names
    assert unknown_operations(recorder.names) == []


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("aten.add_.Tensor", "always"),
        ("aten._foreach_addcdiv_", "always"),
        ("aten::convolution_backward", "asked"),
        ("aten._scaled_dot_product_flash_attention_backward.default", "strict"),
        ("aten._adaptive_avg_pool2d_backward", "never"),
        ("c10d.allreduce_", "asked"),
    ],
)
def test_an_entry_is_found_by_any_name_of_an_operator(name: str, repeats: str) -> None:
    group = group_of(name)
    assert group is not None
    assert group.repeats == repeats


def test_an_operation_without_an_entry_is_named() -> None:
    names = ["aten.relu_", "aten.mystery.out", "prim.device", "profiler._record_function_exit", "c10d.add"]
    assert unknown_operations(names) == ["aten.mystery.out", "c10d.add"]


def test_every_operator_exists_and_has_one_entry() -> None:
    counts = Counter(name for group in OPERATORS for name in group.operators.split())
    assert [name for name, count in counts.items() if count > 1] == []
    names = {name for name in counts if "." not in name}
    variants: list[Callable[[str], str]] = [str, "{}_".format, "_foreach_{}".format, "_foreach_{}_".format]
    assert {n for n in names if not any(hasattr(torch.ops.aten, variant(n)) for variant in variants)} == set()


def test_every_entry_has_sources_that_are_addresses() -> None:
    assert all(group.sources and set(group.sources) <= SOURCES.keys() for group in OPERATORS)
    assert set(SOURCES) == {name for group in OPERATORS for name in group.sources}
    assert all(address.startswith("https://") for address in SOURCES.values())


def test_the_document_shows_the_entries() -> None:
    shown = [
        line
        for line in text_of(REPOSITORY / "docs" / "reference" / "determinism.md").splitlines()
        if line.startswith("| ")
    ]
    written = [line for line in table() if line.startswith("| ")]
    assert shown[-len(written) :] == written, "python -m workers.determinism.operations prints the table"
