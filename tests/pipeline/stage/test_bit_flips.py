"""A bit that is flipped in the memory of a stage: the digests find its step and stage, or it changed nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

import pytest
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.engines import OPTIMIZER
from pipeline.serial import build_stages
from pipeline.stage.bit_flips import Flippable, flip_bit, untouched
from pipeline.stage.digests import DIGESTED
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, stage_counters
from tests.marks import slow
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, train

KINDS: tuple[Flippable, ...] = get_args(Flippable)
STEPS = 6
Digests = dict[tuple[int, int, str], str]
"""By step, stage and what they are of."""


@dataclass
class Run:
    """The run that nothing happens to: its digests, and its state before every step and at the end."""

    every: int
    stages: list[Stage] = field(init=False)
    config: Config = field(init=False)
    before: list[list[tuple[dict[str, Tensor], dict[str, object]]]] = field(default_factory=list)
    digests: Digests = field(default_factory=dict)

    def __post_init__(self) -> None:
        adam = {2: {"optimizer": {"kind": "adamw", "lr": 0.01}}}
        self.config = small_config(
            model={"cuts": ["layer2", "layer3"]},
            optimizer={"warmup_epochs": 0},
            stages=adam,
            digests={"every": self.every},
        )
        self.stages = build_stages(self.config, STEPS_PER_EPOCH)
        for step in range(STEPS):
            self.before.append(self.now())
            self.digests |= self.trained([step])
        self.before.append(self.now())

    def now(self) -> list[tuple[dict[str, Tensor], dict[str, object]]]:
        return [(state(stage), stage_counters(stage)) for stage in self.stages]

    def trained(self, steps: range | list[int]) -> Digests:
        reports = zip(steps, train(self.config, steps, self.stages), strict=True)
        return {
            (step, index, what): report.digests[what]
            for step, of_step in reports
            for index, report in enumerate(of_step, 1)
            for what in DIGESTED
            if what in report.digests
        }

    def flipped(self, what: Flippable, step: int, stage: int, draw: int) -> tuple[int, int, str] | None:
        """The first digest that differs when a bit is flipped there; None if none does."""
        for each, (tensors, counters) in zip(self.stages, self.before[step], strict=True):
            restore_stage(each, tensors, counters)
        struck = []

        def exposed(shown: Flippable, now: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
            if (shown, now) == (what, step):
                struck.append(flip_bit(tensors(), draw))

        self.stages[stage - 1].exposed = exposed
        try:
            found = self.trained(range(step, STEPS))
        except RuntimeError:  # of an optimizer whose count of steps has become negative
            assert what == "optimizer"
            return step, stage, "error"
        finally:
            self.stages[stage - 1].exposed = untouched
            assert len(struck) == 1
        return next((place for place, digest in found.items() if self.digests[place] != digest), None)

    def masked(self, what: Flippable) -> bool:
        """Whether all is what it is in the undisturbed run; of the optimizer's state, a trace too small to matter may
        be left where it was flipped, or a gradient that it adds up."""
        left = OPTIMIZER if what in ("optimizer", "gradient") else "nothing"
        pairs = ((now[0], then[0]) for now, then in zip(self.now(), self.before[-1], strict=True))
        return all(
            same(*({n: t for n, t in each.items() if not n.startswith(left)} for each in pair)) for pair in pairs
        )


@pytest.fixture(scope="module")
def whole() -> Run:
    return Run(every=1)


@pytest.fixture(scope="module")
def sparse() -> Run:
    return Run(every=3)


def place(draw: int) -> tuple[int, int, int]:
    """Step, stage and seed of a place, drawn by its number."""
    step, stage = torch.randint(1, STEPS - 1, (2,), generator=torch.Generator().manual_seed(draw)).tolist()
    return step, 1 + stage % 3, draw


@pytest.mark.parametrize("draws", [range(3), slow(range(3, 53))], ids=["few", "many"])
@pytest.mark.parametrize("what", KINDS)
def test_a_flipped_bit_is_found_at_its_step_and_stage(whole: Run, what: Flippable, draws: range) -> None:
    shown = []
    for step, stage, draw in map(place, draws):
        found = whole.flipped(what, step, stage, draw)
        shown.append("masked" if found is None else found[2])
        if what in ("message", "gradient"):
            assert found == (step, stage, {"message": "input", "gradient": "gradient"}[what])
        elif found is None:
            assert whole.masked(what)
        elif what == "weight":
            assert found[:2] == (step, stage)
            assert found[2] in ("loss", "gradient", "weights")
        else:
            assert found[1] == stage
            assert found[0] >= step
            assert found[2] == "weights" or found == (step, stage, "error")
    print(what, {name: shown.count(name) for name in sorted(set(shown))})
    assert len(set(shown) - {"masked"}) >= 1, "all of them are masked"


@pytest.mark.parametrize("draws", [range(1), slow(range(1, 25))], ids=["few", "many"])
@pytest.mark.parametrize("what", KINDS)
def test_between_two_recorded_steps_it_is_found_at_the_second(sparse: Run, what: Flippable, draws: range) -> None:
    for step, stage, draw in map(place, draws):
        found = sparse.flipped(what, step, stage, draw)
        if found is None:
            assert sparse.masked(what)
        else:
            assert found[1] == stage
            assert what == "optimizer" or found[0] == step // 3 * 3 + 2  # later, where it has to grow first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_one_bit_is_flipped_and_again_is_back(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(dtype)
    images = images.to(memory_format=torch.channels_last)
    seen = set()
    for draw in range(200):
        shown, kept = {"none": torch.empty(0), "images": images}, images.clone()
        said = flip_bit(shown, draw)
        changed = [
            int(a) ^ int(b) for a, b in zip(*(_bytes(tensor) for tensor in (kept, images)), strict=True) if a != b
        ]
        assert len(changed) == 1, said
        assert changed[0].bit_count() == 1, said
        seen.add(said)
        assert flip_bit(shown, draw) == said
        assert _bytes(images).equal(_bytes(kept))
    assert len(seen) > 150
    assert {0, 8 * dtype.itemsize - 1} <= {int(said.split()[1]) for said in seen}, "the sign, too"


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
