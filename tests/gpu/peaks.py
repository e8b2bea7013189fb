"""What a GPU computes at most in bfloat16 on its tensor cores, without sparsity; MFU is the share of it.

The numbers are those of NVIDIA's data sheets. Where one gives only the number with 2:4 sparsity, it is half of that.
"""

from __future__ import annotations

TFLOPS: tuple[tuple[str, float, str], ...] = (
    ("B200", 2250.0, "HGX B200: 36 PFLOPS of eight, with sparsity"),
    ("H200 NVL", 835.5, "H200 data sheet, NVL: 1,671 with sparsity"),
    ("H200", 989.5, "H200 data sheet, SXM: 1,979 with sparsity"),
    ("H100 PCIe", 756.5, "H100 data sheet, PCIe: 1,513 with sparsity"),
    ("H100 NVL", 835.5, "H100 data sheet, NVL: 1,671 with sparsity"),
    ("H100", 989.5, "H100 data sheet, SXM: 1,979 with sparsity"),
    ("A100", 312.0, "A100 data sheet"),
    ("L40S", 362.0, "L40S data sheet"),
    ("L4", 121.0, "L4 data sheet: 242 with sparsity"),
    ("A10", 125.0, "A10 data sheet"),
    ("RTX 4090", 165.2, "Ada whitepaper, with float32 accumulation"),
)
"""Part of the name that torch gives the device, TFLOP/s, and where from; the first that fits counts."""


def peak_tflops(device: str) -> float | None:
    """Of a device by its name; None where it is not known."""
    return next((tflops for part, tflops, _ in TFLOPS if f" {part} " in f" {device.replace('-', ' ')} "), None)
