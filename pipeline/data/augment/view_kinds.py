"""The size and the augmentation settings of each view of an image.

All code that draws, makes, packs or compares views calls `view_kinds`; no other code reads `data.views`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipeline.config import AugmentConfig, DataConfig
from pipeline.config.data import CropsConfig

NEVER = (0.0, 0.0)


@dataclass(frozen=True)
class ViewKind:
    """The settings of one view.

    Args:
        size: side in pixels; where it grows (`pipeline.data.augment.resolution`), the side at the end of training.
        augment: its augmentation; both numbers of every pair are this view's.
    """

    size: int
    augment: AugmentConfig


@lru_cache(maxsize=16)
def view_kinds(data: DataConfig, num_views: int | None = None) -> tuple[ViewKind, ...]:
    """The views of every image, in order: the two of `data.augment`, or those of `data.views`.

    The first of a pair in `data.augment` is for view 1, the second for all others.

    Args:
        data: the section of the configuration.
        num_views: of the run (`Config.num_views`); one more than there are views to compare adds the negative patch,
            which is cropped by `augment.patch_scale` and nothing else. None leaves the patch out.

    Raises:
        ValueError: `num_views` is neither the number of views to compare nor one more.
    """
    groups = data.views or (CropsConfig(count=2),)
    each = [group for group in groups for _ in range(group.count)]
    kinds = tuple(_kind(data, group, number) for number, group in enumerate(each))
    if num_views in (None, len(kinds)):
        return kinds
    if num_views != len(kinds) + 1:
        raise ValueError(f"a run of {num_views} views cannot have {len(kinds)} to compare")
    return (*kinds, ViewKind(data.image_size, patch_augment(data.augment)))


def sizes_differ(data: DataConfig) -> bool:
    """Whether an image has views of several sizes, which are then sent packed (`pipeline.data.packing`)."""
    return len({kind.size for kind in view_kinds(data)}) > 1


def patch_augment(common: AugmentConfig) -> AugmentConfig:
    """The settings of the negative patch, derived from `common`."""
    return common.model_copy(
        update={
            "crop_p": (1.0, 1.0),
            "crop_scale": common.patch_scale,
            "flip_p": NEVER,
            "jitter": common.jitter.model_copy(update={"p": NEVER}),
            "gray_p": NEVER,
            "blur_p": NEVER,
            "solarize_p": NEVER,
            "noise_std": NEVER,
        }
    )


def _kind(data: DataConfig, group: CropsConfig, number: int) -> ViewKind:
    common, at = data.augment, min(number, 1)

    def both(override: float | None, pair: tuple[float, float]) -> tuple[float, float]:
        value = pair[at] if override is None else override
        return value, value

    augment = common.model_copy(
        update={
            "crop_p": both(None, common.crop_p),
            "crop_scale": group.crop_scale or common.crop_scale,
            "flip_p": both(group.flip_p, common.flip_p),
            "jitter": common.jitter.model_copy(update={"p": both(group.jitter_p, common.jitter.p)}),
            "gray_p": both(group.gray_p, common.gray_p),
            "blur_p": both(group.blur_p, common.blur_p),
            "solarize_p": both(group.solarize_p, common.solarize_p),
            "noise_std": both(group.noise_std, common.noise_std),
        }
    )
    return ViewKind(group.size or data.image_size, augment)
