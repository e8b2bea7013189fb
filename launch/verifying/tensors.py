"""The tensors of two sides, compared bit by bit: which differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from pipeline.errors import UserError
from pipeline.stage.fold import integers_of
from pipeline.stage.state import ONLINE
from workers.run.tensor_files import facts_of, open_tensors
from workers.snapshots.manifest import MANIFEST, read_manifest


@dataclass
class StateDifference:
    """How the state of one stage differs: weights, buffers and the optimizer's tensors.

    Args:
        stage: counted from 1.
        tensors: names of those that differ, in the order of the file.
        elements, of: how many elements differ in them, and of how many in all tensors.
        largest: the largest absolute difference of two numbers that are finite on both sides; 0 if only bits differ.
        tensor: the tensor in which it is.
        nan: elements that are a number on one side only.
        problem: what keeps the two from being compared, such as another shape; empty if nothing does.
    """

    stage: int
    _: KW_ONLY
    tensors: list[str] = field(default_factory=list)
    elements: int = 0
    of: int = 0
    largest: float = 0.0
    tensor: str = ""
    nan: int = 0
    problem: str = ""
    _square: float = 0.0
    _whole: float = 0.0

    @property
    def differs(self) -> bool:
        """Whether any bit does."""
        return bool(self.tensors or self.problem)

    @property
    def distance(self) -> float:
        """The 2-norm of the difference of all floating-point tensors together, as a share of their own."""
        return float("inf") if self.nan or self.problem else (self._square / (self._whole or 1.0)) ** 0.5

    def add(self, name: str, there: Tensor, here: Tensor) -> None:
        """Compare one more tensor, of one shape and type on both sides."""
        self.of += there.numel()
        if there.is_floating_point():
            self._whole += float(there.double().square().nan_to_num(0.0).sum())
        changed = integers_of(there) != integers_of(here)
        if not (count := int(changed.sum())):
            return
        self.tensors.append(name)
        self.elements += count
        one, other = there.flatten()[changed].double(), here.flatten()[changed].double()
        finite = one.isfinite() & other.isfinite()
        self.nan += int((~finite).sum())
        gaps = (one - other)[finite].abs()
        if there.is_floating_point():
            self._square += float(gaps.square().sum())
        if len(gaps) and (gap := float(gaps.max())) > self.largest:
            self.largest, self.tensor = gap, name

    def __str__(self) -> str:
        if self.problem:
            return f"stage {self.stage}: {self.problem}"
        shown = self.tensors[0] + (f" and {len(self.tensors) - 1} more" if len(self.tensors) > 1 else "")
        size = f"the largest difference is {self.largest:.3g}, in {self.tensor}" if self.tensor else "only bits differ"
        broken = f"; {self.nan:,} of them are finite on one side only, or on none" if self.nan else ""
        return f"stage {self.stage}: {shown}: {self.elements:,} of {self.of:,} elements differ; {size}{broken}"


def compare_states(there: Path, here: Path, stage: int, run: Path, again: Path) -> StateDifference | None:
    """The state of a stage in two files, one tensor at a time; None where no batch has reached the stage by then.

    Args:
        there, here: folders with a file for each stage.
        stage: counted from 1.
        run, again: the run directories that they are in.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    name = f"stage_{stage}.safetensors"
    check_parts(there, (stage,))
    check_parts(here, (stage,))
    found = StateDifference(stage)
    sides = [(folder / name).is_file() for folder in (there, here)]
    if not all(sides):
        of_snapshots = all((folder / MANIFEST).is_file() for folder in (there, here))  # the end has all stages
        found.problem = "it has been reached on one side only" if any(sides) and of_snapshots else ""
        return found if found.problem else None
    try:
        with open_tensors(there / name, run) as one, open_tensors(here / name, again) as other:
            found.problem = _misfit(one, other)
            for tensor in () if found.problem else _names(one):
                found.add(tensor, one.get_tensor(tensor), other.get_tensor(tensor))
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{there / name}' cannot be compared ({error})") from None
    return found


def check_parts(state: Path, stages: Iterable[int]) -> None:
    """Raises `UserError` where a file of these stages is missing; a snapshot has those that its manifest names."""
    named = read_manifest(state).stages if (state / MANIFEST).is_file() else None
    for stage in stages:
        path = state / f"stage_{stage}.safetensors"
        if (named is None or stage in named) and not path.is_file():
            raise UserError(f"'{path}' is missing. Bring it back, or move '{state}' out of the run to go without it")


def _names(file: Any) -> list[str]:
    return sorted(name for name in file.keys() if not name.startswith(ONLINE))  # noqa: SIM118  # it is no dict


def _misfit(one: Any, other: Any) -> str:
    there, here = facts_of(one), facts_of(other)
    alone = sorted(set(_names(one)) ^ set(_names(other)))
    if alone:
        return f"'{alone[0]}' is on one side only"
    wrong = next((name for name in _names(one) if there[name] != here[name]), None)
    return "" if wrong is None else f"'{wrong}' is {there[wrong]} there and {here[wrong]} here"
