"""A run cut after every unit, as which its parts are counted one by one, whatever its own cuts are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from pipeline.backbones import build_block
from pipeline.backbones.module import build_traced_blocks
from pipeline.backbones.possible_cuts import with_every_cut
from pipeline.config import Config, MemoryConfig, StageConfig, StageOverrides
from pipeline.config.model import ModuleConfig
from pipeline.config.objectives import BYOLConfig
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.shapes import view_shapes
from pipeline.stage.fake import Undrawn, without_engines

OF_UNITS = {"precision", "optimizer", "frozen"}
"""Settings of a stage."""


def cut_everywhere(config: Config) -> Config:
    """The same run with a stage for each unit; a network of the user's own is traced to find where it can be cut.

    Raises:
        ConfigError: that network cannot be built, traced, or cut where the run cuts it.
    """
    if isinstance(config.model, ModuleConfig):
        model = with_every_cut(config.model, config.data.image_size)
        return config.model_copy(update={"model": model})
    return config.model_copy(
        update={"model": config.model.model_copy(update={"cuts": tuple(config.model.units()[:-1])})}
    )


@dataclass(frozen=True)
class FinestRun:
    """A run cut after every unit, with the settings of one stage everywhere.

    On one replica, without engines; nothing is computed again in the backward pass, and no norms are measured.

    Args:
        config: of the run, of `cut_everywhere`.
        number: of the stage whose settings all units get, counted from 1.
    """

    of: Config
    number: int

    @cached_property
    def config(self) -> Config:
        """As which it is counted."""
        own = self.of.stages.get(self.number, StageOverrides()).model_copy(update={"replicas": None, "memory": {}})
        stages = dict.fromkeys(range(1, self.of.num_stages + 1), own)
        metrics = self.of.metrics.model_copy(update={"norms_every": 0})
        plain = {"stages": stages, "replicas": 1, "memory": MemoryConfig(), "metrics": metrics}
        return without_engines(self.of.model_copy(update=plain))

    def stage(self, index: int) -> StageConfig:
        """The settings at unit `index`, counted from 1."""
        return self.config.stage(index)

    @cached_property
    def of_units(self) -> tuple[str, bool]:
        """What decides how a unit is counted, beside the unit."""
        settings = self.stage(1)
        return settings.model_dump_json(include=OF_UNITS), isinstance(settings.objective, BYOLConfig)

    @cached_property
    def of_ends(self) -> str:
        """What decides how an end is counted, beside the shape of what enters it."""
        return self.stage(1).model_dump_json(include={*OF_UNITS, "head", "objective", "noise"})

    def shapes(self, index: int) -> list[tuple[int, ...]]:
        """What enters unit `index` of every view of one image; see `view_shapes`."""
        sizes = [kind.size for kind in view_kinds(self.of.data, self.of.num_views)]
        return view_shapes(self.config, index, sizes)

    def block(self, index: int) -> nn.Module:
        """Unit `index`, on the CPU; large weights are zeros."""
        if isinstance(self.config.model, ModuleConfig):
            return self._blocks[index - 1]
        with Undrawn():
            return build_block(self.config, index)

    @cached_property
    def _blocks(self) -> list[nn.Module]:
        assert isinstance(self.config.model, ModuleConfig)
        with Undrawn():
            return list(build_traced_blocks(self.config.model, self.config.data.image_size, self.config.seed))
