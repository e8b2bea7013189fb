"""A linear classifier that is trained along with a block, on its detached features.

Batch norm without weights precedes it, as in the linear probe of masked autoencoders (He et al. 2022, appendix A.1),
because blocks and networks differ in the scale of their features, and one learning rate must suit all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.randomness import seeded_initialisation

MOMENTUM = 0.9
WINDOW = 100
"""Steps over which an accuracy is averaged."""


class OnlineProbe(nn.Module):
    """One block's classifier, trained by SGD with momentum at a constant learning rate.

    Args:
        width: D, of the features.
        classes: of the labels.
        lr: learning rate.
        seed, stage: key the initialisation.
        device, dtype: where and in what precision it computes.
    """

    def __init__(
        self, width: int, classes: int, lr: float, seed: int, stage: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        with seeded_initialisation(seed, "online probe", stage):
            self.linear = nn.Linear(width, classes)
        self.to(device=device, dtype=dtype)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=lr, momentum=MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[B, classes]` of features `[B, D]`; in evaluation mode with the running statistics."""
        logits: Tensor = self.linear(self.norm(features))
        return logits

    def step(self, features: Tensor, labels: Tensor) -> float:
        """One step on features `[B, D]` of classes `[B]`; returns the accuracy before the step, 0 to 1."""
        with torch.enable_grad():
            logits = self(features.detach())
            loss = F.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        right: float = (logits.argmax(dim=1) == labels).double().mean().item()
        return right

    def weights(self) -> dict[str, Tensor]:
        """The tensors that classify: `norm.running_mean`, `norm.running_var`, `linear.weight`, `linear.bias`."""
        return {name: tensor for name, tensor in self.state_dict().items() if name != "norm.num_batches_tracked"}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied: weights, statistics and, after the first step, `momentum.PARAMETER`."""
        state = self.optimizer.state
        momenta = {f"momentum.{n}": state[p]["momentum_buffer"] for n, p in self.named_parameters() if p in state}
        return {**self.state_dict(), **momenta}

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        """Load the result of `tensors`; returns False and changes nothing if it is of another classifier."""
        current = self.state_dict()
        loaded = {name: tensors[name] for name in current if name in tensors}
        if len(loaded) < len(current) or any(loaded[name].shape != current[name].shape for name in loaded):
            return False
        self.load_state_dict(loaded)
        for name, parameter in self.named_parameters():
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter).clone()
        return True


class RunningAccuracy:
    """The mean of the added accuracies; from step `WINDOW` on, an exponential average over about that many steps."""

    def __init__(self) -> None:
        self.value, self._count = 0.0, 0

    def add(self, share: float) -> float:
        """Add one step's accuracy, 0 to 1; returns the average."""
        self._count += 1
        self.value += (share - self.value) / min(self._count, WINDOW)
        return self.value

    def tensors(self) -> dict[str, Tensor]:
        """The state."""
        return {"average": torch.tensor([self.value, self._count], dtype=torch.float64)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `tensors`."""
        value, count = tensors["average"].tolist()
        self.value, self._count = value, int(count)
