"""A GPU that computes no more for this process, in words: what happened to it, and what to do. Does not import torch.

After such an error every further call to the device fails, in this process and, where the device itself is gone, in
the next one too. PyTorch raises an `AcceleratorError`, or a `RuntimeError` in some libraries, whose text begins with
the runtime's words and goes on with advice for people who write kernels.
"""

from __future__ import annotations

import re

from pipeline.errors import reason_of

FORBIDDEN = ("device-side assert",)
"""A kernel looked at what it was given, and stopped; CUDA's words in small letters, as below."""
CRASHED = (
    "illegal memory access",
    "illegal address",
    "illegal instruction",
    "invalid program counter",
    "misaligned address",
    "unspecified launch failure",
    "launch timed out",
)
"""A kernel went wrong: by a fault of the program, of a library, or of the device."""
GONE = (
    "fallen off the bus",
    "gpu is lost",
    "uncorrectable ecc error",
    "hardware stack error",
    "uncorrectable nvlink error",
    "no cuda-capable device",
    "no hip gpus",
    "unspecified driver error",
)
"""The device, or its driver, is at fault: a new process finds it no better."""
_RUNTIMES = re.compile(r"\b(CUDA|HIP|cuDNN|cuBLAS)\b", re.IGNORECASE)
_NAMED = "CUDA_LAUNCH_BLOCKING=1 in the environment makes the traceback in the log name the operation"
_FAULTY = "'dmesg | grep -i xid' and 'nvidia-smi -q' say whether the device is at fault"
_REMEDIES = {
    FORBIDDEN: f"a kernel refused a value, most often an index or a label out of range. {_NAMED}; so does device=cpu",
    CRASHED: f"a kernel crashed. {_NAMED}; {_FAULTY}",
    GONE: f"the device or its driver failed. {_FAULTY}; reset it, or leave it out by stages.K.device or "
    "CUDA_VISIBLE_DEVICES, and resume the run",
}


def device_lost(error: BaseException, device: str) -> str | None:
    """One sentence on an exception that means that the device is lost to this process; None on any other.

    Args:
        error: what was raised.
        device: that the process computes on, such as `cuda:1`.
    """
    words = _words_of(error)
    found = next((kind for kind in _REMEDIES if any(part in words.lower() for part in kind)), None)
    return None if found is None else f"{device} was lost ({words}): {_REMEDIES[found]}"


def is_gone(error: BaseException) -> bool:
    """Whether the device is lost to every process, so that to start again does not help."""
    return any(part in _words_of(error).lower() for part in GONE)


def _words_of(error: BaseException) -> str:
    """What the runtime said, without the advice that follows; empty where it was not the runtime of a device."""
    if not isinstance(error, RuntimeError):
        return ""
    if type(error).__name__ != "AcceleratorError" and not _RUNTIMES.search(str(error)):
        return ""
    return reason_of(error)
