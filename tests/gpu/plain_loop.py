"""Blockwise Barlow Twins in one process, as plainly as the paper's pseudocode: what every pipeline is compared with.

    for images in data:
        x1, x2 = augment(images), augment(images)
        for block, head, optimizer in network:
            z1, z2 = block(x1), block(x2)
            loss = barlow_twins(head(z1), head(z2)); loss.backward(); optimizer.step()
            x1, x2 = (z1 + noise).detach(), (z2 + noise).detach()

(Siddiqui et al., arXiv:2302.01647.) Only torch and torchvision compute here. Its input is one random batch that stays
on the device: no data loader, no report, no snapshot, nothing deterministic that costs time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck
from torchvision.models.vision_transformer import EncoderBlock

from tests.gpu.networks import LAMBD, LR, MOMENTUM, NOISE, SCALE, WEIGHT_DECAY, sizes
from tests.gpu.setting import Setting
from tests.gpu.speed import flop_counter

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM_UP = 4


class Lars(torch.optim.Optimizer):
    """As released with Barlow Twins (main.py), one parameter after the other."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                update = p.grad
                if p.ndim > 1:
                    update = update.add(p, alpha=WEIGHT_DECAY)
                    p_norm, norm = torch.norm(p), torch.norm(update)
                    one = torch.ones_like(p_norm)
                    update = update * torch.where((p_norm > 0) & (norm > 0), 0.001 * p_norm / norm, one)
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(MOMENTUM).add_(update)
                p.add_(momentum, alpha=-group["lr"])


class Embedding(nn.Module):
    """Images to tokens: patches, class token, positions."""

    def __init__(self, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(images), -1, -1), tokens], 1) + self.positions


class MeanOfTokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def projector(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers with batch norm and ReLU between them."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(inputs, outputs, bias=False))
        if number < len(widths) - 2:
            layers += [nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return layers


def resnet50(size: dict[str, Any]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Four blocks, each a group of residual units, the first with the stem; and their heads."""
    width, blocks, heads = size["width"], list[nn.Module](), list[nn.Module]()
    stem = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = width
    for number, count in enumerate((3, 4, 6, 3)):
        planes, units = width * 2**number, list[nn.Module]()
        for unit in range(count):
            stride = 2 if number and not unit else 1
            shortcut = nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            units.append(Bottleneck(channels, planes, stride, None if unit else nn.Sequential(*shortcut)))
            channels = 4 * planes
        blocks.append(nn.Sequential(*([] if number else stem), *units))
        expansion = [nn.Conv2d(channels, size["expansion"], 1, bias=False), nn.BatchNorm2d(size["expansion"])]
        pooling = [nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        heads.append(nn.Sequential(*expansion, *pooling, *projector([size["expansion"], *size["projector"]])))
    return blocks, heads


def vit_s(size: dict[str, Any]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Four blocks of encoder layers, the first with the embedding of patches, the last with a norm; and their heads."""
    width, quarter, blocks = size["width"], size["layers"] // 4, list[nn.Module]()
    for number in range(4):
        layers = [EncoderBlock(size["heads"], width, 4 * width, 0.0, 0.0) for _ in range(quarter)]
        first = [] if number else [Embedding(width, size["patch"], size["side"])]
        blocks.append(nn.Sequential(*first, *layers, *([nn.LayerNorm(width, eps=1e-6)] if number == 3 else [])))
    heads = [nn.Sequential(MeanOfTokens(), *projector([width, *size["projector"]])) for _ in range(4)]
    return blocks, list(heads)


NETWORKS = {"resnet50": resnet50, "vit_s": vit_s}


def barlow_twins(z1: Tensor, z2: Tensor) -> Tensor:
    """The loss of two batches of embeddings, `[B, D]`."""
    z1, z2 = (
        F.batch_norm(z.to(torch.float32) if z.dtype != torch.float64 else z, None, None, training=True)
        for z in (z1, z2)
    )
    c = z1.T @ z2 / len(z1)
    on, squares = (c.diagonal() - 1).square().sum(), c.square().sum()
    return SCALE * (on + LAMBD * (squares - c.diagonal().square().sum()))


class PlainLoop:
    """The network, its optimizers, and a step of them.

    Args:
        network: a name of `NETWORKS`.
        size: see `tests.gpu.networks.sizes`.
        device, dtype: of the parameters.
        half: compute in bfloat16, images last in channels.
        noise: standard deviation of the noise between blocks, in that of the activations.
    """

    def __init__(
        self, network: str, size: dict[str, Any], device: torch.device, *,
        dtype: torch.dtype = torch.float32, half: bool = False, noise: float = NOISE,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.blocks, self.heads = NETWORKS[network](size)
        self.half, self.noise, self.device = half, noise, device
        for module in (*self.blocks, *self.heads):
            module.to(device, dtype)
            if half and network == "resnet50":
                module.to(memory_format=torch.channels_last)
        self.optimizers: list[torch.optim.Optimizer] = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            trained = [*block.parameters(), *head.parameters()]
            if network == "resnet50":
                self.optimizers.append(Lars(trained, LR[network]))
            else:
                self.optimizers.append(torch.optim.AdamW(trained, LR[network], weight_decay=WEIGHT_DECAY))

    def step(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Train every block on two batches of normalised images, `[B, 3, S, S]` each; the losses."""
        losses, inputs = [], list(views)
        for block, head, optimizer in zip(self.blocks, self.heads, self.optimizers, strict=True):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                outputs = [self._with_noise(block(x)) for x in inputs]
                embeddings = [head(z) for z in outputs]
            loss = barlow_twins(*embeddings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            inputs = [z.detach() for z in outputs]
        return losses

    def _with_noise(self, z: Tensor) -> Tensor:
        return z + self.noise * z.detach().std() * torch.randn_like(z) if self.noise else z

    def digest(self) -> str:
        """Of the parameters."""
        found = hashlib.sha256()
        for module in (*self.blocks, *self.heads):
            for parameter in module.parameters():
                found.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def measure(setting: Setting, network: str, steps: int) -> dict[str, Any]:
    """Images/s of `steps` steps, FLOPs of one for each image, and the digest of the weights at the end."""
    device, size = torch.device(setting.of_tensors), sizes(network, setting.small)
    loop = PlainLoop(network, size, device, half=setting.half)
    source = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (2, setting.batch, 3, size["side"], size["side"]), generator=source, dtype=torch.uint8
    )
    images = images.to(device)
    mean, std = (torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (MEAN, STD))
    order = torch.channels_last if setting.half else torch.contiguous_format

    def one_step() -> None:
        loop.step([((view / 255 - mean) / std).to(memory_format=order) for view in images])

    with flop_counter() as counted:
        one_step()
    for _ in range(min(WARM_UP, steps)):
        one_step()
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        one_step()
    _wait(device)
    rate = steps * setting.batch / (time.perf_counter() - began)
    flops = counted.get_total_flops() / setting.batch
    return {"images_per_second": rate, "flops_per_image": flops, "digests": [loop.digest()], "batch": setting.batch}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
