"""The tensors of a source, under the names that they have there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from pipeline.data.sets.memory import available_bytes
from pipeline.errors import UserError
from pipeline.stage.state import Facts, network_names
from workers.run.tensor_files import facts_of, open_tensors, tensors_in
from workers.weights.pickled import Converted, converted
from workers.weights.sources import Source

TRUNK, PREFIXES = "block.", ("head.", "objective.")
"""How the tensors of a stage begin: those of the block; those that are thrown away after training."""


@dataclass
class OpenedWeights:
    """Tensors that can be read one at a time, while the files are open.

    Args:
        facts: shape and dtype by name. Of a run, a block's tensors have the names of the whole network, and a head's
            are `stages.K.head.NAME`.
        converted: what is said of a file of `torch.save`.
    """

    facts: dict[str, Facts] = field(default_factory=dict)
    converted: Converted | None = None
    _places: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def add(self, file: Any, names: Mapping[str, str]) -> None:
        """Add the tensors of an opened file; `names`: in the file, by the name that they are to have."""
        facts = facts_of(file)
        self.facts |= {name: facts[there] for name, there in names.items()}
        self._places |= {name: (file, there) for name, there in names.items()}

    def read(self, name: str) -> Tensor:
        """One tensor."""
        file, there = self._places[name]
        tensor: Tensor = file.get_tensor(there)
        return tensor


@contextmanager
def opened_weights(source: Source) -> Iterator[OpenedWeights]:
    """Open the files of `source`.

    Raises:
        UserError: one is damaged, holds no tensor, or is refused.
    """
    with ExitStack() as stack:
        weights = OpenedWeights()
        try:
            if source.kind == "pickled":
                file, weights.converted = stack.enter_context(converted(source.path))
                _add_all(weights, stack.enter_context(tensors_in(file, source.path)))
            elif source.kind == "safetensors":
                path = Path(os.path.realpath(source.path))
                _check_memory(path)
                _add_all(weights, stack.enter_context(open_tensors(path, path.parent)))
            else:
                for index, path in source.stage_files().items():
                    opened = stack.enter_context(open_tensors(path, source.path))
                    weights.add(opened, _stage_names(index, opened.keys()))
        except (SafetensorError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"'{source.name}' cannot be read ({reason})") from None
        if not weights.facts:
            raise UserError(f"'{source.name}' holds no tensor. Give another file")
        yield weights


def _add_all(weights: OpenedWeights, file: Any) -> None:
    weights.add(file, {name: name for name in file.keys()})  # noqa: SIM118  # it is no dict


def _check_memory(path: Path) -> None:
    size, have = path.stat().st_size, available_bytes()
    if have is not None and size > have:
        raise UserError(f"'{path}' has {size / 1e9:.1f} GB, and {have / 1e9:.1f} GB of memory are available")


def _stage_names(index: int, names: list[str]) -> dict[str, str]:
    """By the names that they get, those in a stage's file; without the optimizer's state and a target network."""
    found = {}
    for name in network_names(names):
        if name.startswith(TRUNK):
            found[name.removeprefix(TRUNK)] = name
        elif name.startswith(PREFIXES):
            found[f"stages.{index}.{name}"] = name
    return found
