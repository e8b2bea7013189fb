"""What a stage needs of a device at the least, at once and from its costs: what cannot fit need not be asked for."""

from __future__ import annotations

from dataclasses import replace

from launch.partition.costs import Costs, StageCut
from launch.prepare.recompute import BY_COST
from pipeline.config import Config
from pipeline.config.memory import Recompute

CERTAIN = 0.9
"""The part of what autograd was counted to keep of single units that is sure to be kept of a stage of them."""


class MemoryBounds:
    """Bounds for the stages of one network.

    Args:
        config: of the run.
        costs: of its network, with the memory of a device.
    """

    def __init__(self, config: Config, costs: Costs) -> None:
        self._config, self._costs = config, costs
        self._given: dict[int, Recompute] = {}

    def given(self, stage: int) -> Recompute:
        """`memory.recompute` of a stage, counted from 1, as the run has it; none where it is left open.

        The run may have fewer stages.
        """
        if stage not in self._given:
            known = min(stage, self._config.num_stages)
            value = (self._config.stage(known) if stage == known else self._config).memory.recompute
            self._given[stage] = "none" if value == "auto" else value
        return self._given[stage]

    def optimistic(self, cuts: tuple[StageCut, ...]) -> tuple[StageCut, ...] | None:
        """The stages of one process with the least recompute that they may need; None if none can do."""
        held = sum(self._weights(cut) for cut in cuts)
        found = [self._least(cut, held) for cut in cuts]
        return None if None in found else tuple(cut for cut in found if cut is not None)

    def size(self, cut: StageCut) -> float:
        """Bytes by which stages can be compared: with everything kept."""
        return self._weights(cut) + self._kept(cut, "none")

    def _least(self, cut: StageCut, held: int) -> StageCut | None:
        allowed = BY_COST[BY_COST.index(self.given(cut.stage)) :]
        enough = (mode for mode in allowed if held + self._kept(cut, mode) <= self._costs.memory)
        mode = next(enough, None)
        return None if mode is None else replace(cut, recompute=mode)

    def _weights(self, cut: StageCut) -> int:
        units = self._costs.units_of(cut.stage)[cut.first : cut.last + 1]
        return sum(unit.parameters for unit in units) + self._costs.ends[cut.stage, cut.last].parameters

    def _kept(self, cut: StageCut, mode: Recompute) -> float:
        """Of a replica, when the backward pass begins; smaller chunks may take what the head keeps to nothing."""
        kept = [unit.kept for unit in self._costs.units_of(cut.stage)[cut.first : cut.last + 1]]
        of_image = {
            "none": sum(kept) + self._costs.ends[cut.stage, cut.last].kept,
            "units": max(kept),
            "views": sum(kept) / self._config.num_views,
        }[mode]
        return CERTAIN * of_image * self._costs.batch / cut.replicas
