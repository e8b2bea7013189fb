"""Remembers which steps were found deterministic on this machine with these versions, to check each only once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.config import Config
from workers.determinism.step import Trial
from workers.run.private import home_cache, is_own

DECIDE = (
    "mode", "threads", "train", "data", "model", "head", "objective", "noise", "optimizer", "precision", "memory",
    "stages",
)  # fmt: skip
"""Sections of a configuration that a step depends on."""
PACKAGES = ("onward", "torch", "torchvision")
CHOICES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Environment variables that select the kernels of a processor."""


class VerifiedSteps:
    """Steps that were found deterministic, one file each in `~/.cache/onward`.

    Where that folder cannot be made, belongs to somebody else or may be written by others, nothing is remembered.

    Args:
        config: of the run.
        device: of the stage.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        kinds = [config.stage(index).objective.kind for index in range(1, config.num_stages + 1)]
        custom = any(":" in name for name in (config.model.backbone, *kinds))
        self._folder = None if custom else _folder()  # a user's own code may change without its name
        sections = config.model_dump(mode="json", include=set(DECIDE))
        self._key = {"config": sections, "level": config.determinism.level, "machine": machine_facts(device)}

    def has(self, trial: Trial) -> bool:
        """Whether the step of `trial` was found deterministic before."""
        return self._folder is not None and self._file(trial).exists()

    def add(self, trial: Trial) -> None:
        """Remember the step of `trial`."""
        if self._folder is not None:
            with suppress(OSError):
                self._file(trial).touch(mode=0o600)

    def _file(self, trial: Trial) -> Path:
        assert self._folder is not None
        text = json.dumps({**self._key, "trial": asdict(trial)}, sort_keys=True)
        return self._folder / hashlib.sha256(text.encode()).hexdigest()


def _folder() -> Path | None:
    folder = home_cache() / "onward" / "repeated"
    return folder if is_own(folder) else None


def machine_facts(device: torch.device) -> dict[str, object]:
    """All of this machine and its packages that decides which kernels compute on `device`."""
    facts: dict[str, object] = {
        "packages": {name: version(name) for name in PACKAGES},
        "torch": torch.__config__.show(),
        "processor": _processor(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "chosen": {name: os.environ[name] for name in CHOICES if name in os.environ},
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU p"))}))
    return platform.processor()
