"""The input of a stage: the views out of one tensor, in the format in which the stage computes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.config import Config
from pipeline.data.augment.normalize import Normalize
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import unpack
from pipeline.precision import Compute
from pipeline.shapes import view_shapes

Batch = Tensor | Sequence[Tensor]
"""One tensor, as `pipeline.data.packing.pack` makes it; or the views themselves."""


class StageInputs:
    """The inputs of stage `index` of a run.

    Args:
        config: the run.
        index: of the stage, from 1.
        steps_per_epoch: which epoch, and so which size of views, a step is of.
        compute: the precision of the stage.
    """

    def __init__(self, config: Config, index: int, steps_per_epoch: int, compute: Compute) -> None:
        self._config, self._index, self._steps_per_epoch, self._compute = config, index, steps_per_epoch, compute
        self.packed = sizes_differ(config.data)
        """Whether views travel packed, into this stage and out of it."""
        self._normalize = Normalize(config.data.mean, config.data.std)
        self._shapes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def views(self, batch: Batch, step: int) -> list[Tensor]:
        """One tensor a view.

        Args:
            batch: of this stage's input; `[B, S, S, 3]` a view where it is bytes.
            step: of the run; says how large the views are.

        Raises:
            ValueError: a packed batch is not of views of the sizes of this step.
        """
        if not isinstance(batch, Tensor):
            return list(batch)
        return unpack(batch, self._shapes_at(step) if self.packed else ())

    def prepared(self, view: Tensor) -> Tensor:
        """Images, bytes `[B, S, S, 3]`, normalised to `[B, 3, S, S]`; activations in the format of this stage."""
        x, compute = view if view.is_floating_point() else self._normalize(view), self._compute
        if not compute.half and x.dtype != compute.activations and x.dtype.itemsize < 4:
            x = x.to(compute.activations)  # the stage before computes in half precision, this one does not
        return compute.in_memory_format(x)

    def _shapes_at(self, step: int) -> list[tuple[int, ...]]:
        sizes = view_sizes(self._config.data, step // self._steps_per_epoch, self._config.num_views)
        if sizes not in self._shapes:
            self._shapes[sizes] = view_shapes(self._config, self._index, sizes)
        return self._shapes[sizes]
