"""What is measured of a block while it is trained (`evaluation.online`), and never changes what it learns.

A stage hands over the features of its forward, cut from the graph; after its own update they are measured. Nothing that
is measured flows back, and whatever is drawn is keyed by (seed, stage), so the trained bits are those of a run without.
Of the replicas of a stage the first measures, on the rows of all.
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
from pipeline.measures.online_probe import OnlineProbe, RunningShare
from pipeline.measures.quality import alpha_req, collapse_level, lidar, rankme
from pipeline.precision import Compute
from pipeline.replicas import ReplicaGroup
from pipeline.shapes import block_output, channels_of

Measure = Literal["linear", "knn", "rankme", "alpha", "alpha_r2", "collapse", "lidar", "skipped"]


class _Kept(Protocol):
    """A part of the state."""

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> bool: ...


class OnlineMeasures:
    """The measures of one stage, on its trunk: the block's output without its noise, averaged over pixels or tokens.

    Batch norm is in training mode, so a feature depends a little on the other images of its batch.

    Args:
        config: the run.
        stage: counted from 1.
        classes: of the training set.
        steps_per_epoch: within an epoch no image comes twice.
        compute: where the stage computes; half precision is measured in float32.
        team: the replicas of the stage.
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
        self._linear, self._knn, self.skipped, self._epoch = RunningShare(), RunningShare(), 0, 0
        self.probe: OnlineProbe | None = None
        self._bank = self._recent = None
        if team.rank > 0:
            return
        if online.linear:
            self.probe = OnlineProbe(
                width, classes, online.lr, seed=config.seed, stage=stage, device=compute.device, dtype=self._dtype
            )
        if online.knn_bank:
            self._bank = Bank(online.knn_bank, (width,), compute.device, self._dtype)
        if online.quality_every:
            shape = (self._views_wanted, width)
            self._recent = Bank(online.quality_samples, shape, compute.device, self._dtype)

    def collect(self, number: int, output: Tensor) -> None:
        """Keep the pooled features of view `number`, from 1, `[B, C, H, W]` or `[B, N, D]`, until `measure`."""
        if number == 1:
            self._views = []
        if number <= self._views_wanted:
            over = (2, 3) if output.dim() == 4 else (1,)
            self._views.append(output.detach().to(self._dtype).mean(dim=over))

    def measure(self, step: int, labels: Tensor | None) -> dict[Measure, float]:
        """Measure what was collected, then learn from it; all replicas must call it.

        Args:
            step: of the run.
            labels: `[B]`, of the whole batch.

        Returns:
            By name, what there is to say after this step; nothing where nothing was collected, and on all replicas but
            the first. `linear` and `knn`: shares of images classified correctly, 0 to 1 (`RunningShare`). Every
            `quality_every` steps RankMe, alpha-ReQ and its R2, the collapse level and LiDAR. `skipped`: steps so far
            whose features were not finite and were left out.

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
        found: dict[Measure, float] = {}
        if bool(features.isfinite().all()):
            with torch.no_grad():
                found = {**self._classify(features[:, 0], labels, step), **self._quality(features, step)}
        else:
            self.skipped += 1
        return {**found, "skipped": self.skipped} if self.skipped else found

    def _classify(self, features: Tensor, labels: Tensor | None, step: int) -> dict[Measure, float]:
        if labels is None:
            return {}
        found: dict[Measure, float] = {}
        if self._bank is not None:
            if (epoch := step // self._steps_per_epoch) != self._epoch:
                self._bank.clear()  # or an image would meet another view of itself, and know its class by that
                self._epoch = epoch
            if len(self._bank) >= self.settings.online.knn_k:
                found["knn"] = self._knn.add(self._neighbours_right(self._bank, features, labels))
            self._bank.add(features, labels)
        if self.probe is not None:
            found["linear"] = self._linear.add(self.probe.step(features, labels))
        return found

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
        """The state, `PART.NAME`, not copied; on all replicas but the first it is empty."""
        if self._team.rank > 0:
            return {}
        found = {"counters": torch.tensor([self.skipped, self._epoch])}
        for part, (kept, share) in self._parts.items():
            own = {**kept.tensors(), **(share.tensors() if share else {})}
            found |= {f"{part}.{name}": tensor for name, tensor in own.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """The inverse, from the state of the whole stage; names that are not its own are left alone.

        Returns:
            What starts anew because the state has nothing of it, or of another size.
        """
        if self._team.rank > 0:
            return []
        if (counters := tensors.get("counters")) is not None:
            self.skipped, self._epoch = counters.tolist()
        anew = []
        for part, (kept, share) in self._parts.items():
            prefix = f"{part}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if not kept.load(own):
                anew.append(part)
            elif share:
                share.load(own)
        return anew

    @property
    def _parts(self) -> dict[str, tuple[_Kept, RunningShare | None]]:
        parts = {
            "probe": (self.probe, self._linear),
            "bank": (self._bank, self._knn),
            "recent": (self._recent, None),
        }
        return {name: (kept, share) for name, (kept, share) in parts.items() if kept is not None}


def online_measures(
    config: Config, stage: int, classes: int, steps_per_epoch: int, compute: Compute, team: ReplicaGroup
) -> OnlineMeasures | None:
    """The measures of a stage as `evaluation.online` wants them; None if it wants none. Arguments as the class."""
    online = config.evaluation.online
    if not (online.linear or online.knn_bank or online.quality_every):
        return None
    return OnlineMeasures(config, stage, classes, steps_per_epoch, compute=compute, team=team)
