"""Memory that ran out, in words: how much was asked for, and what the process had. Does not import torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

STATM = Path("/proc/self/statm")
RAN_OUT = "memory ran out"
"""What the words begin with, by which whoever reads a failure's cause knows it."""


def memory_ran_out(error: BaseException) -> str:
    """One sentence on an exception for which `pipeline.errors.is_out_of_memory` holds."""
    text = " ".join(str(error).split())
    asked = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", text)
    if asked is None:
        words = next(iter(str(error).strip().splitlines()), "")  # CUDA's go on with advice for those who write kernels
        return f"{RAN_OUT}{f' ({words})' if words else ''}"
    amount = size_in_words(int(asked[1])) if asked[2] == "bytes" else f"{asked[1]} {asked[2]}"
    return f"{RAN_OUT}: {_had(text)} and asked for {amount} more"


def size_in_words(count: int) -> str:
    """A number of bytes in MiB, or in GiB from one GiB on."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _had(text: str) -> str:
    """By PyTorch's message about a GPU, else by what is resident."""
    gpu = re.search(r"GPU (\d+) has a total capac\w+ of ([\d.]+ [KMGT]iB)", text)
    used = re.search(r"this process has ([\d.]+ [KMGT]iB) memory in use", text)
    if gpu:
        return f"it had {f'{used[1]} of ' if used else ''}the {gpu[2]} of GPU {gpu[1]}"
    if not STATM.exists():
        return "it had what there was"
    return f"it had {size_in_words(int(STATM.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE'))}"
