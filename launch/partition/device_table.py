"""How fast devices are, for times that nobody has measured: figures of their makers, and the shares that training
reaches of them.

Bandwidths of memory, and those of NVLink and PCI Express, are of NVIDIA's data sheets and white papers, as the peaks in
`workers/stage/flops.py`: nvidia.com/en-us/data-center/ and the card. A bare name is that of the SXM card. What is
reached of them, the time of a call and all that concerns messages are assumptions, the same for all cards: none was
measured here. One comparison speaks for the first two. The units of ResNet-50, 512 images of 224 pixels a step, come
out at 2562 images/s in bf16 and 1312 in TF32 for an A100, 1102 and, in fp32, 245 for a V100; NVIDIA trained the network
on one card at 2470 and 938, 1156 to 1200 and 356 to 367 (github.com/NVIDIA/DeepLearningExamples, ResNet50 v1.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launch.partition.costs import LinkCost
from launch.partition.kernel_calls import KernelCall, KernelCalls
from launch.plan.gpus import GIB, GPUS, available_memory, parse_gpu
from pipeline.errors import UserError
from workers.stage.flops import PEAKS, TERA, name_in_peaks

GIGA = 1e9
REACHED_FLOPS = 0.5
"""Share of the peak that products of matrices and convolutions reach; assumed: large ones reach more, small ones
less."""
REACHED_BANDWIDTH = 0.8
"""Share of the bandwidth, of memory and of every link, that kernels and messages reach; assumed."""
CALL = 5e-6
"""Seconds that any operation takes at least, because Python has to call it; assumed."""
MESSAGE, LATENCY = 0.2e-3, 0.5e-3
"""Seconds of each end of a link for a message, and until the receiver is awake. Half a millisecond and more is what
messages of 1 MB take in BENCHMARKS.md; how much of it is whose is assumed."""
HIDDEN = 0.5
"""Share of the sum of gradients that is hidden behind the backward pass; assumed."""
GPU_HOST_CARD, CPU_HOST_CARD = 12.5 * GIGA, 1.25 * GIGA
"""Bytes a second of the network card of a host, in each direction: 100 Gbit/s with GPUs, 10 Gbit/s without; assumed."""

SHORT_NAMES: Mapping[str, str] = {
    **{"h100": "H100", "h200": "H200", "a100-80": "A100", "a100-40": "A100 40GB", "l4": "L4"},
    "rtx4090": "GeForce RTX 4090",
}
"""Names of `GPUS` in `BANDWIDTHS`."""
NVLINK = {"V100": 150, "A100": 300, "H100": 450, "H200": 450, "B200": 900}
PCIE_3, PCIE_4, PCIE_5 = 16, 32, 64
BANDWIDTHS: Mapping[str, tuple[float, float]] = {
    "Tesla V100": (900, NVLINK["V100"]),
    "Tesla T4": (300, PCIE_3),
    "A10": (600, PCIE_4),
    "A30": (933, PCIE_4),
    "A100 40GB": (1555, NVLINK["A100"]),
    "A100": (2039, NVLINK["A100"]),
    "L4": (300, PCIE_4),
    "L40S": (864, PCIE_4),
    "H100 PCIe": (2000, PCIE_5),
    "H100 NVL": (3900, PCIE_5),
    "H100": (3350, NVLINK["H100"]),
    "H200 NVL": (4800, PCIE_5),
    "H200": (4800, NVLINK["H200"]),
    "B200": (8000, NVLINK["B200"]),
    "GeForce RTX 3090": (936, PCIE_4),
    "GeForce RTX 4090": (1008, PCIE_4),
}
"""GB/s of its memory, and to another card of the host in one direction: over NVLink where the board has it for all
cards, else over 16 lanes of PCI Express."""
WITHOUT_PEERS = "GeForce"
"""Cards that do not reach each other's memory: what they send goes through pinned memory of the host."""
PINNED = PCIE_4

CORE_FLOPS, CORE_HALF_FLOPS, CORE_BANDWIDTH = 140 * GIGA, 400 * GIGA, 15 * GIGA
"""What training reaches on a core of a Sapphire Rapids class Xeon (virtual), one thread, torch 2.14.1, 2026-12-01, by
hand while other programs ran. These figures fit the processor time of steps best: ResNet-18 and ResNet-50 of 28 to 96
pixels and a small ViT took 0.91 to 1.37 of what they give, stage by stage, and ResNet-18 in bf16 0.72 to 1.6. Another
processor differs by several times, and most have no such speed in bf16: measure."""
CORE_CALL = 5e-6
CORE_COPY, CORE_CHECKSUM, CORE_SOCKET = 11 * GIGA, 10.5 * GIGA, 3 * GIGA
"""Bytes a second of a copy into shared memory, of a checksum, and of a message through the loopback device, both ends
together: those of BENCHMARKS.md, for messages of 50 MB and 12 MB."""


@dataclass(frozen=True, kw_only=True)
class DeviceSpeed:
    """What training reaches on a device.

    Args:
        name: for people.
        half, tf32, full: FLOP/s of products and convolutions of half-precision numbers, of others with TF32, without.
        bandwidth: bytes a second of its memory.
        call: seconds that any operation takes at least.
        memory: bytes that programs can use; None where the name does not say.
        within, across: links.
        summing: seconds for a byte of gradients that replicas sum.
    """

    name: str
    half: float
    tf32: float
    full: float
    bandwidth: float
    call: float
    memory: int | None
    within: LinkCost
    across: LinkCost
    summing: float

    def seconds(self, calls: KernelCalls, tf32: bool) -> float:
        """The time of all calls, one after the other: each by what bounds it, computing or memory.

        Args:
            calls: of kernels.
            tf32: whether products and convolutions round their inputs to TF32.
        """
        return sum(times * self._seconds(call, tf32) for call, times in calls.items())

    def _seconds(self, call: KernelCall, tf32: bool) -> float:
        flops = self.half if call.half else self.tf32 if tf32 else self.full
        return max(call.flops / flops, call.bytes / self.bandwidth, self.call)


def device_speed(name: str, *, peers: bool = True, threads: int = 1) -> DeviceSpeed:
    """The device of a name.

    Args:
        name: `cpu`, one of `GPUS`, or that of a card as PyTorch gives it.
        peers: whether cards may write into each other's memory (`link.device_to_device`).
        threads: cores of a stage on a CPU; so many are as many times as fast.

    Raises:
        UserError: it is not known how fast it is.
    """
    if name == "cpu":
        return _core(threads)
    try:
        short = parse_gpu(name).name
    except UserError:
        short = ""
    card = SHORT_NAMES.get(short) or name_in_peaks(name)
    if card is None:
        raise UserError(_unknown(name, is_size=bool(short)))
    memory = int(GPUS[short] * GIB) if short in GPUS else None
    half, tf32, full = (REACHED_FLOPS * TERA * peak for peak in PEAKS[name_in_peaks(card) or card])
    bandwidth, way = (REACHED_BANDWIDTH * GIGA * each for each in BANDWIDTHS[card])
    direct = peers and WITHOUT_PEERS not in card
    return DeviceSpeed(
        name=name,
        half=half,
        tf32=tf32,
        full=full,
        bandwidth=bandwidth,
        call=CALL,
        memory=memory,
        within=_ring(way) if direct else _pinned(),
        across=_link(bandwidth=REACHED_BANDWIDTH * GPU_HOST_CARD),
        summing=(1 - HIDDEN) * 2 / (way if direct else REACHED_BANDWIDTH * GIGA * PINNED / 2),
    )


def _unknown(name: str, is_size: bool) -> str:
    allowed = f"{', '.join(SHORT_NAMES)}, or cpu"
    if is_size:
        return (
            f"'{name}' says how much memory a GPU has, and not how fast it is. Name the GPU: {allowed}. "
            "Or measure on a machine that has one: --measure"
        )
    return f"it is not known how fast '{name}' is. Allowed: {allowed}. Or measure on a machine that has one: --measure"


def _link(*, sending: float = 0.0, receiving: float = 0.0, bandwidth: float = float("inf")) -> LinkCost:
    return LinkCost(sending=sending, receiving=receiving, message=MESSAGE, bandwidth=bandwidth, latency=LATENCY)


def _ring(way: float) -> LinkCost:
    """The sender writes into the memory of the receiver's card."""
    return _link(sending=1 / way)


def _pinned() -> LinkCost:
    """Each end copies between its card and memory of the host."""
    way = REACHED_BANDWIDTH * GIGA * PINNED
    return _link(sending=1 / way, receiving=1 / way)


def _core(threads: int) -> DeviceSpeed:
    checked = 1 / CORE_CHECKSUM
    socket = 1 / (2 * CORE_SOCKET) + checked
    return DeviceSpeed(
        name="cpu",
        half=threads * CORE_HALF_FLOPS,
        tf32=threads * CORE_FLOPS,
        full=threads * CORE_FLOPS,
        bandwidth=threads * CORE_BANDWIDTH,
        call=CORE_CALL,
        memory=available_memory(),
        within=_link(sending=1 / CORE_COPY + checked, receiving=checked),
        across=_link(sending=socket, receiving=socket, bandwidth=REACHED_BANDWIDTH * CPU_HOST_CARD),
        summing=2 / CORE_SOCKET,
    )
