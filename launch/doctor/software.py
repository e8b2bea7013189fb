"""Versions, GPUs, and what reaches what."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from launch.doctor.findings import Finding
from launch.plan.gpus import ASK_SECONDS
from launch.prepare.placement import count_gpus
from launch.processes.presence import SOURCES

INSTALL_CUDA = "Install PyTorch with CUDA: see pytorch.org/get-started; 'make install PIP_ARGS=...' takes its index"


@dataclass(frozen=True)
class GpuFacts:
    """The GPUs of this host.

    Args:
        files: GPUs that the system shows, less those that CUDA_VISIBLE_DEVICES hides.
        names: as PyTorch calls those that it can use.
        driver: version of the driver; empty if it does not say.
        cuda: version that PyTorch is built for; empty without.
        apart: pairs that do not reach each other's memory directly.
    """

    files: int
    names: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""
    apart: tuple[tuple[int, int], ...] = ()


def gpu_facts() -> GpuFacts:
    """Ask PyTorch and the driver's tool."""
    cuda, files = torch.version.cuda or "", count_gpus()
    if not files:
        return GpuFacts(0, cuda=cuda)
    numbers = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    apart = [(a, b) for a in numbers for b in numbers if a < b and not torch.cuda.can_device_access_peer(a, b)]
    return GpuFacts(files, tuple(map(torch.cuda.get_device_name, numbers)), _driver(), cuda, tuple(apart))


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.strip().partition("\n")[0]


def versions(found: Mapping[str, str], cuda: str) -> Finding:
    """What every host must have the same of, of `own_versions`."""
    parts = [f"{what} {version}" for what, version in found.items() if what not in (SOURCES, "Python")]
    sources = f"source files {found[SOURCES]}"
    for_cuda = f"for CUDA {cuda}" if cuda else "without CUDA"
    return Finding("versions", f"{', '.join(parts)} {for_cuda}, Python {platform.python_version()}; {sources}")


def gpus(facts: GpuFacts) -> Finding:
    """Whether PyTorch can use the GPUs that are there."""
    if not facts.files:
        return Finding("GPUs", "none that may be used: stages train on the CPU")
    driver = f"driver {facts.driver}" if facts.driver else "a driver that does not say its version"
    if not facts.cuda:
        return Finding.problem("GPUs", f"{facts.files}, and PyTorch is built without CUDA", INSTALL_CUDA)
    if len(facts.names) < facts.files:
        text = f"{facts.files} are there ({driver}), and PyTorch for CUDA {facts.cuda} can use {len(facts.names)}"
        return Finding.problem(
            "GPUs", text, "See what 'nvidia-smi' says: the driver may be too old for this CUDA, or a GPU has failed"
        )
    kinds = ", ".join(f"{facts.names.count(name)} x {name}" for name in dict.fromkeys(facts.names))
    text = f"{kinds}, {driver}"
    if len(facts.names) > 1 and facts.apart:
        pairs = ", ".join(f"{a}-{b}" for a, b in facts.apart[:6])
        remedy = "Nothing is broken: what they exchange goes through the host's memory, which is slower"
        return Finding("GPUs", f"{text}; {len(facts.apart)} pairs have no peer access ({pairs})", remedy)
    return Finding("GPUs", text + ("; each reaches every other (peer access)" if len(facts.names) > 1 else ""))
