"""Which operations really run on the device, in the forward and the backward of everything that a stage can be.

A dispatch mode sees what autograd calls too: it is among what a backward takes over from the thread that began it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.config import Config, DataConfig
from pipeline.data.augment.device_photometrics import Photometrics
from pipeline.serial import build_stages, step_function
from tests.gpu.networks import NETWORKS, parsed
from tests.gpu.setting import Setting
from tests.launch.plan.measured import random_batch
from tests.pipeline.small import small_config
from workers.determinism.operations import unknown_operations
from workers.run.compute import set_up_compute


def optimizer(kind: str, **more: Any) -> dict[str, Any]:
    """One that suits a short run."""
    return {"kind": kind, "warmup_epochs": 1, **more}


PARTS: dict[str, dict[str, Any]] = {
    "vicreg, lsp, sgd": {
        "objective": {"kind": "vicreg"},
        "head": {"kind": "lsp", "projector": [16]},
        "optimizer": optimizer("sgd"),
    },
    "simclr, gsp, adamw": {
        "objective": {"kind": "simclr"},
        "head": {"kind": "gsp", "projector": [16]},
        "optimizer": optimizer("adamw"),
    },
    "byol, units again": {"objective": {"kind": "byol"}, "memory": {"recompute": "units"}},
    "lejepa": {"objective": {"kind": "lejepa"}},
    "supervised, slices": {"objective": {"kind": "supervised"}, "head": {"width": 16, "projector": [10], "chunk": 4}},
    "lars, lr in momentum": {
        "optimizer": optimizer("lars_lr_in_momentum", clip_norm=1.0),
        "noise": {"kind": "all"},
    },
    "lars, clipped": {"optimizer": optimizer("lars_clipped"), "memory": {"recompute": "views"}},
    "fp16": {"precision": {"dtype": "fp16"}},
    "codec": {"link": {"codec": "int8"}},
}
"""On a tiny ResNet, beside the two networks."""
IMAGES = 4


class Seen(TorchDispatchMode):
    """Counts the operations that have a tensor on the device, by name."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.counts = device, Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor))
        if any(tensor.device.type == self.device.type for tensor in tensors):
            self.counts[str(func)] += 1
        return result


def measure(setting: Setting) -> dict[str, Any]:
    """Operations and how often each ran; what torch warned of as not deterministic; what could not be tried, and why.

    An operation of which nobody has said whether it repeats on a GPU is an `error`.

    Raises:
        RuntimeError: no operation of a backward was seen.
    """
    device = torch.device(setting.of_tensors)
    found, failed, warned = Counter[str](), dict[str, str](), set[str]()
    for name, run in cases(setting, device):
        with warnings.catch_warnings(record=True) as caught, Seen(device) as seen:
            warnings.simplefilter("always")
            try:
                run()
            except (RuntimeError, NotImplementedError) as error:
                failed[name] = str(error).splitlines()[0][:200]
        found += seen.counts
        warned |= {str(each.message).split(" ")[0] for each in caught if "deterministic" in str(each.message)}
    if not any("backward" in name for name in found):
        raise RuntimeError("no operation of a backward was seen, so the list is not whole")
    values = {"operations": dict(sorted(found.items())), "failed": failed, "not_deterministic": sorted(warned)}
    # The attention of a CPU stands for that of a GPU.
    if unknown := unknown_operations(name.replace("_for_cpu", "") for name in found):
        names = ", ".join(unknown)
        values["error"] = f"workers/determinism/operations.py does not say whether these repeat on a GPU: {names}"
    return values


def cases(setting: Setting, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name, and what runs."""
    for network in NETWORKS:
        yield (
            NETWORKS[network],
            lambda network=network: two_steps(parsed(network, setting, data={"batch_size": IMAGES}), device),
        )
    for name, sections in PARTS.items():
        yield name, lambda sections=sections: two_steps(small_config(**sections), device)
    yield "augmentation", lambda: augment(device)


def two_steps(config: Config, device: torch.device) -> None:
    """Of all stages, as the serial run makes them."""
    set_up_compute(config)
    stages = build_stages(config, 1, device)
    labels = torch.arange(config.data.batch_size, device=device) % 2 if config.uses_labels else None
    batch, step = random_batch(config, 1, 0).to(device), step_function(config, stages, device)
    for number in range(2):
        for _ in step(stages, batch, number, [1.0] * len(stages), labels=labels):
            pass


def augment(device: torch.device) -> None:
    """What `data.augment_on=device` leaves to the first stage."""
    source = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (2, 16, 32, 32, 3), generator=source, dtype=torch.uint8)
    Photometrics(DataConfig(image_size=32), 2, seed=0)(views.to(device), 0, np.arange(16))
