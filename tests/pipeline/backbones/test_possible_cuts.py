"""Every point at which a network of the user's own can be cut is found, and no other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.backbones.module import measure
from pipeline.backbones.possible_cuts import with_every_cut
from pipeline.config.model import ModuleConfig
from pipeline.errors import ConfigError

OWN = "tests.pipeline.backbones.networks_for_cutting:"


def cuts_of(backbone: str, output: str, cuts: Sequence[str] = (), size: int = 32) -> tuple[str, ...]:
    model = ModuleConfig(backbone=backbone, output=output, cuts=tuple(cuts))
    finest = with_every_cut(model, size)
    assert len(measure(finest, size)) == len(finest.cuts) + 1
    return finest.cuts


def test_a_point_has_weights_before_and_behind_it() -> None:
    assert cuts_of(f"{OWN}plain", "5") == ("0", "1", "3.0")


def test_cuts_that_were_given_stay() -> None:
    assert cuts_of(f"{OWN}plain", "5", ["2", "4"]) == ("0", "1", "2", "3.0", "4")


def test_what_bypasses_a_module_forbids_a_cut_behind_it() -> None:
    cuts = cuts_of("torchvision.models:densenet121", "features", size=64)
    assert "features.denseblock1" in cuts
    assert not any("denselayer" in cut for cut in cuts)


def test_a_network_that_is_traced_less_deep_is_cut_there() -> None:
    """`second` branches on values inside."""
    assert cuts_of(f"{OWN}Constants", "b") == ("a",)


def test_a_cut_that_cannot_be_is_refused_with_the_nearest_that_can() -> None:
    with pytest.raises(ConfigError, match=r"cannot cut at 'features\.denseblock1\.denselayer1'"):
        cuts_of("torchvision.models:densenet121", "features", ["features.denseblock1.denselayer1"], size=64)
