"""A key that has no effect is named, and one that would train on other data than the user thinks is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.validation.idle_keys import RULES
from pipeline.validation.loading import dump_config, load_config, load_for_start

CASES = {
    "link.depth=5": ("runtime=serial", "one process trains all stages: link.depth"),
    "link.rpc_transports=[uv]": ("link.kind=queue", "link.kind is not rpc: link.rpc_transports"),
    "link.device_to_device=false": ("link.kind=p2p", "link.kind is not queue: link.device_to_device"),
    "max_restarts=7": ("restart=none", "restart is none: max_restarts"),
    "snapshots.keep_last=5": ("snapshots.every=null", "snapshots.every is null: snapshots.keep_last"),
    "noise.std=0.5": ("noise.kind=none", "noise.kind is none: noise.std"),
    "noise.final_std=0.5": ("noise.kind=all", "noise.schedule is constant: noise.final_std"),
    "metrics.port=8000": ("metrics.enabled=false", "metrics.enabled is false: metrics.port"),
    "alarms.window_steps=3": ("alarms.enabled=false", "alarms.enabled is false: alarms.window_steps"),
    "trace.from_step=3": ("trace.enabled=false", "trace.enabled is false: trace.from_step"),
    "data.layout=classes": ("seed=1", "data.name is no folder of images: data.layout"),
    "data.download=true": ("seed=1", "this data set cannot be downloaded: data.download"),
    "data.affinity=false": ("data.workers=0", "data.workers is 0: data.affinity"),
    "data.augment.blur_kernel=0.2": ("seed=1", "data.augment.blur_kind is pil: data.augment.blur_kernel"),
    "data.augment.patch_scale=[0.1, 0.2]": ("seed=1", "no loss takes a patch: data.augment.patch_scale"),
    "evaluation.online.lr=0.3": ("seed=1", "evaluation.online.linear is false: evaluation.online.lr"),
    "evaluation.online.knn_k=5": ("seed=1", "evaluation.online.knn_bank is 0: evaluation.online.knn_k"),
    "evaluation.online.quality_samples=50": ("seed=1", "evaluation.online.quality_every is 0"),
    "evaluation.corruptions.severities=[3]": ("seed=1", "evaluation.corruptions.names is none"),
    "evaluation.few_labels.epochs=5": (
        "evaluation.few_labels.shares=[0.1]",
        "evaluation.few_labels.unfrozen is false",
    ),
    "evaluation.few_labels.unfrozen=true": ("seed=1", "evaluation.few_labels.shares is empty"),
    "evaluation.quality.views=4": ("evaluation.quality.enabled=false", "evaluation.quality.enabled is false"),
    "data.feed=stages": ("runtime=serial", "one process trains all stages: data.feed"),
}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text("")
    return tmp_path / "c.yaml"


@pytest.mark.parametrize("key", CASES)
def test_a_key_without_effect_is_named(empty: Path, key: str) -> None:
    other, reason = CASES[key]
    _, notes = load_for_start(empty, [other, key])
    assert [note for note in notes if note.startswith(f"without effect, because {reason}")], notes
    empty.write_text(dump_config(load_config(empty, [other, key])))
    assert load_for_start(empty)[1] == notes, "the same in a file, where all keys stand"


def test_every_rule_has_a_case_here() -> None:
    tried = {key.partition("=")[0] for key in CASES}
    for rule in RULES:
        assert any(key == place or key.startswith(place + ".") for key in tried for place in rule.keys), rule.keys


def test_a_key_that_has_an_effect_or_its_default_is_not(empty: Path) -> None:
    assert load_for_start(empty, ["link.depth=5", "noise.std=0.5", "snapshots={every: 4, keep_last: 5}"])[1] == []
    assert load_for_start(empty, ["runtime=serial", "link.depth=2", "data.augment.patch_scale=[0.05, 0.1]"])[1] == []


def test_a_folder_beside_data_that_need_none_is_refused(empty: Path, tmp_path: Path) -> None:
    """`onward train quickstart.yaml data.root=/my/photos` trained on Fashion-MNIST without a word."""
    for root in (str(tmp_path), "/not/there"):
        with pytest.raises(ConfigError, match=r"^data\.root: got '.*fashion_mnist_10k.*reads no folder\. Give data"):
            load_for_start(empty, [f"data.root={root}"])
    load_config(empty, [f"data.root={tmp_path}"])  # that of an earlier run can still be read
    assert load_for_start(empty, ["data.name=image_folder", f"data.root={tmp_path}"])[1] == []
    assert Config().data.root is None
