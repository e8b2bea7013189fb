"""What each stage has to compute again so that it fits its device: the cheapest that does.

How much a stage needs is not known here: whoever asks brings an account of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.config.memory import Recompute
from pipeline.config.model import ModuleConfig
from pipeline.config.run import StageOverrides

BY_COST: tuple[Recompute, ...] = ("none", "units", "views")
"""The less a stage keeps, the more it computes again."""


@dataclass(frozen=True)
class DevicePeak:
    """The moment at which most of a device is in use.

    Args:
        device: a name, the same for stages that share it.
        bytes: in use at that moment.
        stage: whose step makes it, from 1.
        others: further stages whose memory is part of it, the largest first.
    """

    device: str
    bytes: int
    stage: int
    others: tuple[int, ...] = ()


Account = Callable[[Config], Sequence[DevicePeak]]
"""An estimate for every device of a run, from its whole configuration."""


def undecided(config: Config) -> tuple[int, ...]:
    """The stages whose `memory.recompute` is `auto`, counted from 1."""
    stages = range(1, config.num_stages + 1)
    return tuple(index for index in stages if config.stage(index).memory.recompute == "auto")


def resolve_recompute(
    config: Config, stages: Collection[int], device_bytes: Mapping[str, int], account: Account
) -> Config:
    """`config` with the cheapest `memory.recompute` for each of `stages` with which every device holds its stages.

    Where a device is too small, the stage that makes its peak takes the next more thrifty value, or another stage on it
    does, until all fit or nothing is left to save. A value with which the device would need more is passed over. What
    does not fit even then is returned as it is: whoever starts the run refuses it.

    Args:
        config: of the run.
        stages: that may be changed; the others stay as they were given.
        device_bytes: size of every device.
        account: is asked anew after each change.
    """
    left = {stage: _possible(config, stage, stages) for stage in stages}

    def resolved() -> Config:
        return with_recompute(config, {stage: values[0] for stage, values in left.items()})

    while True:
        full = [peak for peak in account(resolved()) if peak.bytes > device_bytes[peak.device]]
        thrifty = {peak: [k for k in (peak.stage, *peak.others) if len(left.get(k, ())) > 1] for peak in full}
        if not any(thrifty.values()):
            return resolved()
        for peak, able in thrifty.items():
            # One gradient flows through all: see _possible.
            saving = [k for k in stages if len(left[k]) > 1] if config.mode == "end_to_end" else able[:1]
            before = {k: left[k] for k in saving}
            left |= {k: values[1:] for k, values in before.items()}
            now = next(other.bytes for other in account(resolved()) if other.device == peak.device)
            if now > peak.bytes:
                left |= {k: (values[0], *values[2:]) for k, values in before.items()}


def with_recompute(config: Config, chosen: Mapping[int, Recompute]) -> Config:
    """`config` with this `memory.recompute` for each stage of `chosen`, counted from 1.

    Where the run's own key is `auto`, it becomes what most stages take, and `stages` names the others alone.
    """
    usual, stages = config.memory.recompute, dict(config.stages)
    if usual == "auto" and chosen:
        usual = Counter(chosen.values()).most_common(1)[0][0]
    for index, recompute in chosen.items():
        before = stages.get(index, StageOverrides())
        memory = {key: value for key, value in before.memory.items() if key != "recompute"}
        memory |= {} if recompute == usual else {"recompute": recompute}
        if memory != before.memory:
            stages[index] = before.model_copy(update={"memory": memory})
    memory_of_all = config.memory.model_copy(update={"recompute": usual})
    return config.model_copy(update={"memory": memory_of_all, "stages": stages})


def as_before(config: Config, earlier: Config) -> Config:
    """`config`, whose stages that leave it open (`auto`) take what those of the `earlier` run were given."""
    stages = [index for index in undecided(config) if index <= earlier.num_stages]
    return with_recompute(config, {index: earlier.stage(index).memory.recompute for index in stages})


def _possible(config: Config, stage: int, stages: Collection[int]) -> tuple[Recompute, ...]:
    """What validation lets a stage do: DeepSpeed has one backward pass, and end to end all go by view or none."""
    together = config.mode == "end_to_end" and len(stages) < config.num_stages
    one_pass = config.stage(stage).engine.kind == "deepspeed" or together or _repeats_weights(config, stage)
    return tuple(value for value in BY_COST if value != "views" or not one_pass)


def _repeats_weights(config: Config, stage: int) -> bool:
    """Whether a user's network uses a weight more than once in a block, which cannot be computed view by view."""
    if not isinstance(config.model, ModuleConfig):
        return False
    from pipeline.backbones.repeated_weights import repeated_weight  # the network is there, so torch is too

    blocks = range(1, config.num_stages + 1) if config.mode == "end_to_end" else (stage,)
    return any(repeated_weight(config.model, block, config.data.image_size) is not None for block in blocks)
