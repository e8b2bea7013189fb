"""Measures of a block while it trains (`evaluation.online`), which do not change the training.

A stage passes the detached features of its forward pass, which are measured after its update. Random numbers are keyed
by (seed, stage), so the trained weights are bit-identical to those of a run without measures. In a stage with
data-parallel replicas, the first replica measures, on the rows of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.config.evaluation import EvaluationConfig
from pipeline.measures.feature_bank import Bank
from pipeline.measures.knn import knn_accuracy
from pipeline.measures.online_probe import OnlineProbe, RunningAccuracy
from pipeline.measures.quality import alpha_req, collapse_level, lidar, rankme
from pipeline.precision import Compute
from pipeline.replicas import ReplicaGroup
from pipeline.shapes import block_output, channels_of

Measure = Literal["linear", "knn", "rankme", "alpha", "alpha_r2", "collapse", "lidar", "skipped"]


class _StatePart(Protocol):
    """A part of the measures that has a state."""

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> bool: ...


class OnlineMeasures:
    """The measures of one stage, on its trunk: the block's output without noise, averaged over pixels or tokens.

    Batch norm is in training mode, so a feature depends a little on the other images of its batch.

    Args:
        config: the run.
        stage: counted from 1.
        classes: of the training set.
        steps_per_epoch: within which no image occurs twice.
        compute: device and precision of the stage; half precision is measured in float32.
        team: the data-parallel replicas of the stage.
    """

    def __init__(
        self, config: Config, stage: int, classes: int, steps_per_epoch: int, *, compute: Compute, team: ReplicaGroup
    ) -> None:
        self.settings: EvaluationConfig = config.evaluation
        self._steps_per_epoch, self._team = steps_per_epoch, team
        self._dtype = torch.float32 if compute.half else compute.activations
        online, width = self.settings.online, channels_of(block_output(config, stage))
        self._views_wanted = config.num_views - config.has_patch if online.quality_every else 1
        self._views: list[Tensor] = []
        self._linear, self._knn, self.skipped, self._epoch = RunningAccuracy(), RunningAccuracy(), 0, 0
        self.probe: OnlineProbe | None = None
        self._bank = self._recent = None
        if team.rank > 0:
            return
        if online.linear:
            self.probe = OnlineProbe(
                width, classes, online.lr, seed=config.seed, stage=stage, device=compute.device, dtype=self._dtype
            )
        if online.knn_bank:
            self._bank = self._make_bank(online.knn_bank, (width,), compute.device)
        if online.quality_every:
            shape = (self._views_wanted, width)
            self._recent = self._make_bank(online.quality_samples, shape, compute.device)

    def _make_bank(self, capacity: int, shape: tuple[int, ...], device: torch.device) -> Bank:
        return Bank(capacity, shape, device, self._dtype)

    def collect(self, number: int, output: Tensor) -> None:
        """Keep the pooled features of view `number`, from 1, `[B, C, H, W]` or `[B, N, D]`, until `measure`."""
        if number == 1:
            self._views = []
        if number <= self._views_wanted:
            over = (2, 3) if output.dim() == 4 else (1,)
            self._views.append(output.detach().to(self._dtype).mean(dim=over))

    def measure(self, step: int, labels: Tensor | None) -> dict[Measure, float]:
        """Measure the collected features, then train the online probe on them; all replicas must call it.

        Args:
            step: of the run.
            labels: `[B]`, of the whole batch.

        Returns:
            The measures of this step by name; empty if nothing was collected, and on all replicas but the first.
            `linear` and `knn`: running accuracies, 0 to 1. Every `quality_every` steps RankMe, alpha-ReQ and its R2,
            the collapse level and LiDAR. `skipped`: number of steps so far that were skipped because their features
            were not finite.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        views, self._views = self._views, []
        if not views:
            return {}
        features = torch.stack(views, dim=1)
        if self._team.size > 1:
            features = self._team.all_gather(features).flatten(0, 1)
        if self._team.rank > 0:
            return {}
        values: dict[Measure, float] = {}
        if self._are_finite(features):
            with torch.no_grad():
                values = {**self._classify(features[:, 0], labels, step), **self._quality(features, step)}
        else:
            self.skipped += 1
        return {**values, "skipped": self.skipped} if self.skipped else values

    def _are_finite(self, features: Tensor) -> bool:
        return bool(features.isfinite().all())

    def _classify(self, features: Tensor, labels: Tensor | None, step: int) -> dict[Measure, float]:
        if labels is None:
            return {}
        values: dict[Measure, float] = {}
        if self._bank is not None:
            if (epoch := step // self._steps_per_epoch) != self._epoch:
                self._bank.clear()  # or an image could find another view of itself, with its own label
                self._epoch = epoch
            if len(self._bank) >= self.settings.online.knn_k:
                values["knn"] = self._knn.add(self._neighbours_right(self._bank, features, labels))
            self._bank.add(features, labels)
        if self.probe is not None:
            values["linear"] = self._linear.add(self.probe.step(features, labels))
        return values

    def _neighbours_right(self, bank: Bank, features: Tensor, labels: Tensor) -> float:
        k, temperature = self.settings.online.knn_k, self.settings.knn.temperature
        return knn_accuracy(bank.features, bank.labels, features, labels, (k,), temperature)[k][0]

    def _quality(self, features: Tensor, step: int) -> dict[Measure, float]:
        if self._recent is None:
            return {}
        self._recent.add(features)
        if (step + 1) % self.settings.online.quality_every or not self._recent.full:
            return {}
        settings, views = self.settings.quality, self._recent.features
        first = views[:, 0]
        power_law = alpha_req(first, settings.ranks)
        return {
            "rankme": rankme(first, settings.epsilon),
            "alpha": power_law.alpha,
            "alpha_r2": power_law.r2,
            "collapse": collapse_level(first),
            "lidar": lidar(views, settings.delta, settings.epsilon),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The state by `PART.NAME`, not copied; empty on all replicas but the first."""
        if self._team.rank > 0:
            return {}
        state = {"counters": torch.tensor([self.skipped, self._epoch])}
        for part, (kept, share) in self._parts.items():
            part_state = {**kept.tensors(), **(share.tensors() if share else {})}
            state |= {f"{part}.{name}": tensor for name, tensor in part_state.items()}
        return state

    def load(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Load the result of `tensors` from the state of the whole stage; other names are ignored.

        Returns:
            The parts that start anew because the state does not have them, or in another size.
        """
        if self._team.rank > 0:
            return []
        if (counters := tensors.get("counters")) is not None:
            self.skipped, self._epoch = counters.tolist()
        anew = []
        for part, (kept, share) in self._parts.items():
            prefix = f"{part}."
            part_state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if not kept.load(part_state):
                anew.append(part)
            elif share:
                share.load(part_state)
        return anew

    @property
    def _parts(self) -> dict[str, tuple[_StatePart, RunningAccuracy | None]]:
        parts = {
            "probe": (self.probe, self._linear),
            "bank": (self._bank, self._knn),
            "recent": (self._recent, None),
        }
        return {name: (kept, share) for name, (kept, share) in parts.items() if kept is not None}


def online_measures(
    config: Config, stage: int, classes: int, steps_per_epoch: int, compute: Compute, team: ReplicaGroup
) -> OnlineMeasures | None:
    """The measures of a stage that `evaluation.online` asks for; None if there are none, or the stage is frozen.

    Arguments as the class.
    """
    online = config.evaluation.online
    if config.is_frozen(stage) or not (online.linear or online.knn_bank or online.quality_every):
        return None
    return OnlineMeasures(config, stage, classes, steps_per_epoch, compute=compute, team=team)
