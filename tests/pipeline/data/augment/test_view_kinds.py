"""Which views a run has: the released two by default, or as many and of such sizes as the configuration says."""

from __future__ import annotations

import json

import pytest

from pipeline.config import AugmentConfig, Config, DataConfig
from pipeline.config.data import CropsConfig, JitterConfig
from pipeline.data.augment.keyed_draws import Purpose, keyed_uniforms
from pipeline.data.augment.parameters import BOX_DRAWS, DRAWS, PATCH, draw_parameters
from pipeline.data.augment.view_kinds import patch_augment, sizes_differ, view_kinds

IMAGE = (300, 400)
AUGMENT = AugmentConfig(
    crop_p=(0.9, 0.7), flip_p=(0.5, 0.1), jitter=JitterConfig(p=(0.8, 0.6)), gray_p=(0.2, 0.3), blur_p=(1.0, 0.4),
    solarize_p=(0.0, 0.2), noise_std=(0.1, 0.2),
)  # fmt: skip


def test_without_further_keys_they_are_the_two_of_augment_to_the_bit() -> None:
    kinds = view_kinds(DataConfig(augment=AUGMENT, image_size=96))
    assert [kind.size for kind in kinds] == [96, 96]
    for view, kind in enumerate(kinds):
        for index in range(300):
            key = (IMAGE, 5, 2, index, view)
            assert draw_parameters(kind.augment, *key) == draw_parameters(AUGMENT, *key)


def test_two_views_spelled_out_are_the_same_two_views() -> None:
    assert view_kinds(DataConfig(augment=AUGMENT, views=(CropsConfig(count=2),))) == view_kinds(
        DataConfig(augment=AUGMENT)
    )
    assert view_kinds(DataConfig(augment=AUGMENT, views=(CropsConfig(), CropsConfig()))) == view_kinds(
        DataConfig(augment=AUGMENT)
    )


def test_what_a_view_does_not_say_is_that_of_augment_and_all_but_the_first_are_the_second() -> None:
    kinds = view_kinds(DataConfig(augment=AUGMENT, views=(CropsConfig(count=2), CropsConfig(count=3))))
    assert len(kinds) == 5
    assert kinds[1:] == (kinds[1],) * 4
    first, second = kinds[0].augment, kinds[1].augment
    for name in ("crop_p", "flip_p", "gray_p", "blur_p", "solarize_p", "noise_std"):
        one, other = getattr(AUGMENT, name)
        assert (getattr(first, name), getattr(second, name)) == ((one, one), (other, other)), name
    assert (first.jitter.p, second.jitter.p) == ((0.8, 0.8), (0.6, 0.6))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("crop_scale", (0.05, 0.3), (0.05, 0.3)),
        ("flip_p", 0.9, (0.9, 0.9)),
        ("gray_p", 0.0, (0.0, 0.0)),
        ("blur_p", 0.3, (0.3, 0.3)),
        ("solarize_p", 1.0, (1.0, 1.0)),
        ("noise_std", 0.4, (0.4, 0.4)),
    ],
)
def test_a_view_may_have_settings_of_its_own(key: str, value: object, found: object) -> None:
    plain = view_kinds(DataConfig(augment=AUGMENT, views=(CropsConfig(count=2), CropsConfig())))
    kinds = view_kinds(
        DataConfig(augment=AUGMENT, views=(CropsConfig(count=2), CropsConfig.model_validate({key: value})))
    )
    assert kinds[:2] == plain[:2]
    assert kinds[2].augment == plain[2].augment.model_copy(update={key: found})


def test_jitter_of_its_own_changes_the_probability_alone() -> None:
    kinds = view_kinds(DataConfig(augment=AUGMENT, views=(CropsConfig(count=2), CropsConfig(jitter_p=0.0))))
    assert kinds[2].augment.jitter == AUGMENT.jitter.model_copy(update={"p": (0.0, 0.0)})


def test_sizes() -> None:
    multi_crop = DataConfig(views=(CropsConfig(count=2), CropsConfig(count=2, size=96)))
    assert [kind.size for kind in view_kinds(multi_crop)] == [224, 224, 96, 96]
    assert sizes_differ(multi_crop)
    assert not sizes_differ(DataConfig(views=(CropsConfig(count=4),)))
    assert not sizes_differ(DataConfig())


def test_every_view_draws_from_a_key_of_its_own() -> None:
    kinds = view_kinds(
        DataConfig(augment=AUGMENT.model_copy(update={"crop_p": (1.0, 1.0)}), views=(CropsConfig(count=6),))
    )
    drawn = [draw_parameters(kind.augment, IMAGE, 5, 2, 7, view) for view, kind in enumerate(kinds)]
    assert len({(p.top, p.left, p.height, p.width) for p in drawn}) == 6
    for view in (2, 5):
        flips = [draw_parameters(kinds[view].augment, IMAGE, 5, 2, index, view).flip for index in range(200)]
        keyed = [keyed_uniforms(5, Purpose.VIEW, (view, index, 2), DRAWS)[BOX_DRAWS] < 0.1 for index in range(200)]
        assert flips == keyed


def test_the_patch_is_one_more_and_nothing_but_a_crop() -> None:
    data = DataConfig(augment=AUGMENT, image_size=64)
    *two, patch = view_kinds(data, 3)
    assert tuple(two) == view_kinds(data) == view_kinds(data, 2)
    assert (patch.size, patch.augment) == (64, patch_augment(AUGMENT))
    whole = patch_augment(AUGMENT).model_copy(update={"crop_p": (0.0, 0.0)})
    for index in range(100):
        p = draw_parameters(patch.augment, IMAGE, 5, 2, index, PATCH)
        assert p == type(p)(p.top, p.left, p.height, p.width)
        assert draw_parameters(whole, IMAGE, 5, 2, index, PATCH) == type(p)(0, 0, *IMAGE)


def test_a_number_of_views_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="a run of 4 views cannot have 2 to compare"):
        view_kinds(DataConfig(), 4)


def test_the_run_counts_its_views() -> None:
    patch = {"kind": "simclr", "negatives": "single_patch"}
    for values, count, has_patch in (
        ({}, 2, False),
        ({"data": {"views": [{"count": 2}, {"count": 6, "size": 96}]}}, 8, False),
        ({"objective": patch}, 3, True),
        ({"stages": {"2": {"objective": patch}}, "data": {"views": [{"count": 2}]}}, 3, True),
    ):
        config = Config.model_validate_json(json.dumps(values))
        assert (config.num_views, config.has_patch) == (count, has_patch)
        assert len(view_kinds(config.data, config.num_views)) == count
