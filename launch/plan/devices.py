"""What the processes of a run take of every device together, term by term, and whether that fits.

The processes of a pipeline work at the same time, so the peaks of those that share a device are added up. On the CPU
the bytes of tensors are exact; all else is a rule, and marked as estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from launch.plan.account import InputAccount, LinkAccount, ProcessAccount
from launch.prepare.placement import Placement, device_of
from launch.prepare.recompute import DevicePeak
from pipeline.config import Config
from pipeline.data.augment.resolution import all_view_sizes
from pipeline.shapes import block_output
from workers.topology.processes import training_processes

CPU = "cpu"
CUDA_CONTEXT = 2**29
"""Of the driver and of the kernels that are loaded, in every process: about half a GB."""
SENDERS = "CUDA of senders"
"""Name of the contexts that processes on other GPUs have, to write to the ring of a link (`link.device_to_device`)."""
CUBLAS = 2 * 8 * 4096 * 2**10
"""`CUBLAS_WORKSPACE_CONFIG=:4096:8`, which makes it deterministic: 32 MiB for each of two threads, that of the forward
pass and that of the backward pass."""
FRAGMENTATION = 20
"""The allocator rounds blocks up, and keeps parts of blocks that nothing fits into: one in so many bytes of tensors."""
ON_CPU = 5
"""The same of the allocator of the CPU, at the least that was measured (`launch.plan.host`)."""
PROCESS = 100 * 2**20
"""Of a process on the CPU for itself, beside what it shares with the others that are forked from one program."""


@dataclass(frozen=True)
class DeviceTerm:
    """One part of what is needed of a device, in bytes.

    Args:
        name: in words.
        bytes: for all processes on the device.
        estimated: by a rule; otherwise it was computed to the byte.
    """

    name: str
    bytes: int
    estimated: bool


@dataclass(frozen=True, kw_only=True)
class DeviceAccount:
    """What the processes on one device need of it when each of them needs most, in bytes.

    Args:
        device: as torch names it.
        processes: names of those on it.
        stage: whose step is the largest part.
        others: stages on it beside that, the largest part first.
        terms: of the sum.
        has: what there is.
    """

    device: str
    processes: tuple[str, ...]
    stage: int
    others: tuple[int, ...]
    terms: tuple[DeviceTerm, ...]
    has: int

    @property
    def needs(self) -> int:
        """The sum."""
        return sum(term.bytes for term in self.terms)

    @property
    def fits(self) -> bool:
        """Whether there is as much."""
        return self.needs <= self.has

    def to_message(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> DeviceAccount:
        """The inverse of `to_message`."""
        terms = tuple(DeviceTerm(**term) for term in message["terms"])
        names, others = tuple(message["processes"]), tuple(message["others"])
        return cls(**{**message, "terms": terms, "processes": names, "others": others})


@dataclass(frozen=True)
class DeviceProcess:
    """One training process, and the device that it is on."""

    name: str
    stages: tuple[int, ...]
    device: str


Memory = Callable[[Config, tuple[int, ...], bool], ProcessAccount]
"""What the tensors of a process take that trains these stages; the flag says whether on a GPU."""


def device_processes(config: Config, placements: Sequence[Placement]) -> list[DeviceProcess]:
    """The training processes of a run, by rank; one where all stages share it."""
    if config.in_one_process:
        return [DeviceProcess("all stages", tuple(range(1, config.num_stages + 1)), placements[0].device)]
    return [DeviceProcess(p.name, p.stages, device_of(p, placements)) for p in training_processes(config)]


def device_accounts(
    config: Config, placements: Sequence[Placement], sizes: Mapping[str, int], memory: Memory
) -> tuple[DeviceAccount, ...]:
    """For every device that has a size, in order of the processes.

    Args:
        config: of the run; `memory.recompute` is decided.
        placements: one per stage, in order.
        sizes: bytes of each device.
        memory: of one process.
    """
    devices = dict.fromkeys(process.device for process in device_processes(config, placements))
    in_order = {device: sizes[device] for device in devices if device in sizes}
    return tuple(each_account(config, placements, in_order, memory))


def each_account(
    config: Config, placements: Sequence[Placement], sizes: Mapping[str, int], memory: Memory
) -> Iterator[DeviceAccount]:
    """The same one by one, in order of `sizes`: each is computed when it is asked for."""
    from launch.plan.links import foreign_contexts, input_accounts, link_accounts  # these load torch

    everyone = [process for process in device_processes(config, placements) if process.device in sizes]
    links = link_accounts(config, placements)
    named = {process.name: process.device for process in everyone}
    batches = _batches(links, input_accounts(config, placements, links), named)
    whole = {process.name: process.device for process in device_processes(config, placements)}
    contexts = foreign_contexts(links, whole)
    for device, size in sizes.items():
        if on_it := [process for process in everyone if process.device == device]:
            account = _account(config, device, on_it, batches, size, memory)
            if contexts.get(device):
                term = DeviceTerm(SENDERS, contexts[device] * CUDA_CONTEXT, True)
                account = replace(account, terms=(*account.terms, term))
            yield account


def peaks(accounts: Iterable[DeviceAccount]) -> list[DevicePeak]:
    """As the rule for `memory.recompute: auto` asks for them."""
    return [DevicePeak(account.device, account.needs, account.stage, account.others) for account in accounts]


def _account(
    config: Config,
    device: str,
    processes: Sequence[DeviceProcess],
    batches: Mapping[str, int],
    has: int,
    memory: Memory,
) -> DeviceAccount:
    on_gpu, count = device != CPU, len(processes)
    needs = [memory(config, process.stages, on_gpu) for process in processes]
    tensors, waiting = sum(need.peak for need in needs), batches.get(device, 0)
    terms = [DeviceTerm("tensors", tensors, on_gpu), DeviceTerm("batches", waiting, on_gpu)]
    if on_gpu:
        copied = sum(_largest_convolution(config, process.stages) for process in processes)
        terms.append(DeviceTerm("CUDA", count * CUDA_CONTEXT, True))
        terms.append(DeviceTerm("cuBLAS", count * CUBLAS, True))
        terms.append(DeviceTerm("cuDNN", copied, True))
        terms.append(DeviceTerm("fragmentation", (tensors + waiting) // FRAGMENTATION, True))
    else:
        terms.append(DeviceTerm("processes", count * PROCESS, True))
        terms.append(DeviceTerm("fragmentation", tensors // ON_CPU, True))
    by_peak = sorted(needs, key=lambda need: -need.peak)
    kept = [stage.stage for need in by_peak for stage in sorted(need.stages, key=lambda stage: -stage.kept)]
    first, *others = dict.fromkeys([_stage_of(by_peak[0]), *kept])
    return DeviceAccount(
        device=device,
        processes=tuple(process.name for process in processes),
        stage=first,
        others=tuple(others),
        terms=tuple(terms),
        has=has,
    )


def _batches(
    links: Sequence[LinkAccount], inputs: Sequence[InputAccount], devices: Mapping[str, str]
) -> dict[str, int]:
    """What batches take of every device, beside the tensors of its processes, on their way and where they enter."""
    found: dict[str, int] = {}

    def add(device: str, size: int) -> None:
        found[device] = found.get(device, 0) + size

    for entered in inputs:
        add(entered.device, entered.bytes)
    for link in links:
        add(CPU, link.shared + link.replay)
        add(devices.get(link.sender, CPU) if link.on_gpu else CPU, link.sending)
        add(devices.get(link.receiver, CPU) if link.on_gpu else CPU, link.receiving)
    return found


def _largest_convolution(config: Config, stages: Collection[int]) -> int:
    """What cuDNN takes for copies of what comes and goes in the layout that its kernels want: of one view.

    By rule: twice the largest map that a block is given or gives. It copies nothing that is channels last.
    """
    largest = 0
    for index in stages:
        stage = config.stage(index)
        rows = config.data.batch_size // stage.replicas
        width = 4 if stage.precision.dtype == "fp32" else 2
        ends = [block_output(config, end, all_view_sizes(config.data)[-1]) for end in (index - 1, index) if end]
        maps = [prod(shape) * rows * width for shape in ends if len(shape) == 3]
        largest = max([largest, *(2 * size for size in maps if not stage.precision.channels_last)])
    return largest


def _stage_of(process: ProcessAccount) -> int:
    """The stage in whose step the peak is; `moment` ends with it."""
    last = process.moment.rsplit(" ", 1)[-1]
    return int(last) if last.isdecimal() else process.stages[0].stage
