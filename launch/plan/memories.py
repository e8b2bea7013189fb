"""What the tensors of processes take, each computed once: stages that are alike are computed as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from launch.plan.account import ProcessAccount
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.config.objectives import CustomConfig

COMMON: Mapping[str, Any] = {
    **dict.fromkeys(("data", "model", "mode", "runtime", "train", "evaluation"), True),
    "link": {"codec"},
}
"""What all stages share: sections, and of links how activations are rounded."""
OF_PLACE = {"index", "device", "units"}
"""What a stage is called and where it is, which its tensors do not depend on."""
ENCODER_LAYER = "encoder.layers.encoder_layer_"


class ProcessMemories:
    """Says what the tensors of a process take. For a process that ends afterwards: see `process_memory`.

    Two processes are alike where their stages have the same settings and units of the same kind, and are given tensors
    of the same shape: most layers of a Vision Transformer, and the further units of one layer of a ResNet.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], ProcessAccount] = {}

    def __call__(self, config: Config, stages: tuple[int, ...], on_gpu: bool) -> ProcessAccount:
        """See `launch.plan.devices.Memory`; a GPU has no workspaces of the kernels of a CPU."""
        from launch.plan.process_memory import process_memory

        key = (on_gpu, *_what_decides(config, stages))
        if key not in self._known:
            self._known[key] = process_memory(config, stages, cuda=on_gpu)
        return _renumbered(self._known[key], stages)


def _what_decides(config: Config, stages: Sequence[int]) -> tuple[Any, ...]:
    """All that the account of these stages depends on; what enters the first follows from its units."""
    of_stages = [config.stage(index) for index in stages]
    own = tuple(stage.model_dump_json(exclude=OF_PLACE) for stage in of_stages)
    units = tuple(tuple(map(kind_of_unit, stage.units)) for stage in of_stages)
    users = isinstance(config.model, ModuleConfig) or any(isinstance(s.objective, CustomConfig) for s in of_stages)
    place = tuple(stages) if users else (stages[0] == 1, stages[-1] == config.num_stages)
    before = config.stage(max(stages[0] - 1, 1)).precision.model_dump_json()
    elsewhere = {} if users else {"model": {"cuts"}}  # what a unit of a user's network begins with depends on them
    common = config.model_dump_json(include=dict(COMMON), exclude=elsewhere)
    return own, units, place, before, common, config.num_views, config.uses_labels


def kind_of_unit(unit: str) -> str:
    """The same for units of a network that are built alike: layers of an encoder, and those after a layer's first."""
    layer, _, number = unit.partition(".")
    if unit.startswith(ENCODER_LAYER):
        return ENCODER_LAYER
    return f"{layer}.1" if layer.startswith("layer") and number.isdecimal() and int(number) > 0 else unit


def _renumbered(memory: ProcessAccount, stages: Sequence[int]) -> ProcessAccount:
    """The same for other stages that are like these."""
    of_stages = tuple(replace(of, stage=index) for of, index in zip(memory.stages, stages, strict=True))
    numbers = {f" of stage {of.stage}": f" of stage {index}" for of, index in zip(memory.stages, stages, strict=True)}
    ends = next((end for end in numbers if memory.moment.endswith(end)), "")
    return replace(memory, stages=of_stages, moment=memory.moment.removesuffix(ends) + numbers.get(ends, ""))
