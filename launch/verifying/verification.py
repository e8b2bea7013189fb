"""What came out of computing a run again, and its text."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from launch.verifying.recorded import Closeness, Difference
from launch.verifying.tensors import StateDifference
from workers.run.files import relative_to_cwd


@dataclass(frozen=True)
class Verification:
    """What was found; steps until something differs.

    Args:
        run: its directory.
        first, last: numbers of steps, from which and to which it was computed again.
        stages: that were compared.
        recorded: steps whose digests were compared.
        states: numbers of steps after which the state was compared, tensor by tensor.
        difference: the first digest that differs; None if none does.
        tensors: how the state of every stage differs after `states[-1]` steps.
        close: how near numbers have to be, as a share of their size; None where every bit counts.
        near: with `close`, how near the numbers of the first step of every interval are.
        circumstances: what may give other bits by right.
        keys: of the configuration that are not those of the run here, and may change bits.
        edited: a sentence if `config.yaml` is not what the run was started with; empty otherwise.
        done: steps of the run.
    """

    run: Path
    first: int
    last: int
    stages: tuple[int, ...]
    _: KW_ONLY
    recorded: int = 0
    states: tuple[int, ...] = ()
    difference: Difference | None = None
    tensors: tuple[StateDifference, ...] = ()
    close: float | None = None
    near: tuple[Closeness, ...] = ()
    circumstances: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    edited: str = ""
    done: int = 0

    @property
    def equal(self) -> bool:
        """Whether every bit is the same; with `close`, whether every number is near enough."""
        if self.close is not None:
            return all(gap <= self.close for step in self.near for gap in step.gaps.values())
        return self.difference is None and not any(state.differs for state in self.tensors)

    def __str__(self) -> str:
        lines = self._lines() if self.close is None else self._near(self.close)
        return "\n".join([*lines, *([self.edited] if self.edited else []), self._share()])

    def _share(self) -> str:
        """Which part of the run that is."""
        steps = self.last - self.first
        if self.close is not None:
            return f"that is {len(self.near)} of the {self.done} steps of the run"
        if steps == self.done:
            return f"that is all {self.done} steps of the run"
        share = f"that is {steps} of the {self.done} steps of the run ({100 * steps / self.done:.3g} %)"
        return f"{share}; --all computes every step again" if self.equal else share

    def _lines(self) -> list[str]:
        name = f"steps {self.first} to {self.last} of {relative_to_cwd(self.run)}, computed again,"
        if self.equal:
            who = "all stages" if len(self.stages) != 1 else f"stage {self.stages[0]}"
            compared = [f"the digests of {self.recorded} step{'s' * (self.recorded != 1)}"] if self.recorded else []
            compared += [f"every tensor after {_listed(self.states)} steps"] if self.states else []
            return [f"{name} are equal to the bit: {' and '.join(compared)}, {who}"]
        first = [] if self.difference is None else [f"first at {self.difference}"]
        states = [f"after {self.states[-1]} steps, {state}" for state in self.tensors if state.differs]
        return [f"{name} DIFFER", *first, *states, *self._why()]

    def _near(self, close: float) -> list[str]:
        steps = f"step{'s' * (len(self.near) != 1)} {_listed([near.step for near in self.near])}"
        how = "are near enough" if self.equal else "are NOT near enough"
        far = ", ".join(f"stage {k} {max(near.gaps.get(k, 0.0) for near in self.near):.1e}" for k in self.stages)
        line = f"loss and norms of {steps} of {relative_to_cwd(self.run)}, computed again, {how} ({close:g}): {far}"
        apart = f"after {self.last} steps the states differ by " + ", ".join(
            f"{state.distance:.1e} (stage {state.stage})" for state in self.tensors
        )
        return [line, *([apart] if self.tensors else []), *([] if self.equal else self._why())]

    def _why(self) -> list[str]:
        lines = [f"not the same here: {'; '.join(self.keys)}"] if self.keys else []
        if not self.circumstances:
            return [*lines, "versions, processor, devices and modules are those that it was trained with"]
        lines.append(f"other bits may be right, since this differs: {'; '.join(self.circumstances)}")
        return lines if self.close is not None else [*lines, "--close 0.001 asks whether they differ as rounding does"]


def _listed(numbers: tuple[int, ...] | list[int]) -> str:
    return " and ".join(map(str, numbers))
