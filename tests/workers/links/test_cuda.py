"""What is asked of CUDA, as far as that shows without a GPU: that it is there, in which order, its errors in words."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.workers.links.test_gpu_links import ADDRESS
from workers.links import cuda
from workers.links.cuda import NEEDED, OF_EVENTS, CudaGpu, missing_parts
from workers.links.gpu import GpuError
from workers.links.slot_choice import Statement, choose

fresh_runtime = cuda._runtime
runtime = fresh_runtime()
HANDLE = bytes(range(64))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    fresh_runtime.cache_clear()
    yield
    fresh_runtime.cache_clear()


def test_all_that_is_used_is_there() -> None:
    """A release that takes a part away is noticed here; links go through pinned memory then."""
    assert missing_parts() == ""
    documented = {
        "cudaMalloc": "size_t size",
        "cudaFree": "devPtr",
        "cudaIpcGetMemHandle": "devPtr",
        "cudaIpcOpenMemHandle": "handle",
        "cudaIpcCloseMemHandle": "devPtr",
        "cudaSetDevice": "int device",
    }
    for name, argument in documented.items():
        assert argument in getattr(runtime, name).__doc__.splitlines()[0], name
    assert list(inspect.signature(torch.cuda.Event.from_ipc_handle).parameters) == ["device", "handle"]
    assert list(inspect.signature(torch.cuda.Event.ipc_handle).parameters) == ["self"]
    assert {"cudaHostRegister", "cudaHostUnregister", "cudaGetErrorString"} <= set(dir(torch.cuda._cudart))


@pytest.mark.parametrize("part", [*NEEDED, *OF_EVENTS])
def test_a_part_that_is_gone_is_named_and_memory_of_the_host_taken(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: getattr(runtime, name) for name in NEEDED if name != part}
    events = {name: None for name in OF_EVENTS if name != part}
    monkeypatch.setattr(cuda, "_runtime", lambda: SimpleNamespace(**left))
    monkeypatch.setattr(torch.cuda, "Event", SimpleNamespace(**events))
    gone = missing_parts()
    assert gone.endswith(f" has no {part} any more")
    there = Statement(gpu="a", boot="1", ipc="i", pid="p")
    chosen = choose(ADDRESS, there, Statement(gpu="b", boot="1", ipc="i", pid="p", refusal=gone))
    assert (chosen.place, chosen.reason) == ("pinned", f"at stage 2, {gone}")


def test_without_the_package_and_on_another_system_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert missing_parts().startswith("the package cuda-bindings cannot be loaded (")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert missing_parts() == "CUDA IPC is there on Linux with a GPU of NVIDIA"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would succeed")
def test_a_call_that_fails_says_what_cuda_says() -> None:
    device = torch.device("cuda", 0)
    for call, arguments in (("cudaMalloc", (16,)), ("cudaIpcGetMemHandle", (1,)), ("cudaFree", (1,))):
        with pytest.raises(GpuError, match=r"^cudaSetDevice: \w[\w -]+"):
            cuda._checked(device, call, *arguments)
    with pytest.raises(GpuError, match="a handle of 3 bytes is none of memory"):
        cuda._OthersMemory(device, b"abc", 16)


def test_a_handle_passes_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NVIDIA's own type for it, and calls that only note what they are given."""
    calls: list[tuple[Any, ...]] = []

    def checked(device: torch.device, name: str, *arguments: Any) -> Any:
        given = tuple(
            ctypes.string_at(int(one.getPtr()), 64) if isinstance(one, runtime.cudaIpcMemHandle_t) else one
            for one in arguments
        )
        calls.append((name, *given))
        exported = runtime.cudaIpcMemHandle_t()
        ctypes.memmove(int(exported.getPtr()), HANDLE, 64)
        return exported if name == "cudaIpcGetMemHandle" else 4096

    monkeypatch.setattr(cuda, "_checked", checked)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_as_tensor", lambda pointer, nbytes, device: (pointer, nbytes))
    device = torch.device("cuda", 1)
    own = cuda._OwnMemory(device, 512)
    assert (own.handle, own.whole) == (HANDLE, (4096, 512))
    others = cuda._OthersMemory(device, own.handle, 512)
    for memory in (others, own, others, own):  # again without effect
        memory.release()
    assert calls == [
        ("cudaMalloc", 512), ("cudaIpcGetMemHandle", 4096), ("cudaIpcOpenMemHandle", HANDLE, 1),
        ("cudaIpcCloseMemHandle", 4096), ("cudaFree", 4096),
    ]  # fmt: skip


def test_memory_is_shown_to_torch_as_other_libraries_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []

    def as_tensor(memory: Any, device: torch.device) -> Any:
        shown.append(memory.__cuda_array_interface__)
        return SimpleNamespace(data_ptr=lambda: 4096)

    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    cuda._as_tensor(4096, 512, torch.device("cuda", 0))
    assert shown == [{"shape": (512,), "typestr": "|u1", "data": (4096, False), "strides": None, "version": 3}]
    with pytest.raises(GpuError, match="not on the GPU that it was said to be on"):
        cuda._as_tensor(8192, 512, torch.device("cuda", 0))


class Streams:
    """The part of `torch.cuda` that orders work; notes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.current: list[str] = []
        for name in ("Stream", "Event", "stream", "current_stream", "current_device", "device", "cudart"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))
        monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda one, other: False)

    def Stream(self, device: torch.device) -> Any:
        name = f"own {device.index}"
        return SimpleNamespace(
            name=name,
            wait_stream=lambda other: self.calls.append(f"{name} waits for {other.name}"),
            synchronize=lambda: self.calls.append(f"{name} done"),
            query=lambda: True,
        )

    def Event(self, interprocess: bool = False) -> Any:
        return SimpleNamespace(
            record=lambda stream: self.calls.append(f"event in {stream.name}"),
            synchronize=lambda: self.calls.append("event done"),
            ipc_handle=lambda: HANDLE,
            query=lambda: True,
        )

    def current_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(name=f"current {device.index}")

    def current_device(self) -> int:
        return 0

    def device(self, device: torch.device) -> Any:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.current.append(stream.name)
        yield
        self.current.pop()

    def tensor(self, index: int | None) -> Any:
        """One on a GPU, or in memory of the host."""
        return SimpleNamespace(
            is_cuda=index is not None,
            device=torch.device("cpu") if index is None else torch.device("cuda", index),
            copy_=lambda source, non_blocking: self.calls.append(f"copy in {' and '.join(self.current)}"),
            record_stream=lambda stream: self.calls.append(f"kept for {stream.name}"),
        )

    def cudart(self) -> Any:
        return SimpleNamespace(
            cudaHostRegister=lambda pointer, size, flags: int(size > 8),
            cudaHostUnregister=lambda pointer: self.calls.append("unregistered"),
            cudaGetErrorString=lambda code: f"error {code}",
        )


def test_a_copy_is_made_behind_what_it_needs_and_before_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    gpu = CudaGpu(torch.device("cuda"))
    assert (gpu.uuid, gpu.device) == ("GPU-0", torch.device("cuda", 0))
    assert gpu.mark().handle == HANDLE
    for index, own in ((0, "own 0 and own 0"), (1, "own 1 and own 0")):
        marked = cuda._CudaMark(torch.device("cuda", index), torch.cuda.Event())
        gpu.copy(streams.tensor(0), streams.tensor(index), marked)
        assert streams.calls == [
            "own 0 waits for current 0", f"copy in {own}", f"event in own {index}", "kept for own 0",
        ]  # fmt: skip
        streams.calls.clear()
    gpu.copy(streams.tensor(0), streams.tensor(None))
    assert streams.calls == ["own 0 waits for current 0", "copy in own 0 and own 0", "kept for own 0"]
    assert gpu.copied()
    marked.record()
    assert streams.calls.pop() == "event in current 1"
    streams.calls.clear()
    gpu.finish()
    assert streams.calls == ["own 0 done", "own 1 done", "event done"]


def test_gpus_are_told_apart_by_what_all_processes_call_them(monkeypatch: pytest.MonkeyPatch) -> None:
    Streams(monkeypatch)
    gpu = CudaGpu(torch.device("cuda", 1))
    assert gpu.out_of_reach("GPU-1") == ""
    assert gpu.out_of_reach("GPU-0") == "no peer access from GPU GPU-1 to GPU-0"
    assert gpu.out_of_reach("GPU-7").startswith("the other's GPU GPU-7 is hidden from this process (CUDA_VISIBLE_")
    with pytest.raises(GpuError, match="GPU GPU-7 is hidden"):
        gpu.attach("GPU-7", HANDLE, 512)


def test_memory_of_the_host_is_registered_or_it_is_said_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    gpu = CudaGpu(torch.device("cuda", 0))
    assert gpu.pin(torch.empty(8, dtype=torch.uint8)) == ""
    assert gpu.pin(torch.empty(9, dtype=torch.uint8)) == "cudaHostRegister: error 1"
    gpu.unpin(torch.empty(8, dtype=torch.uint8))
    assert streams.calls == ["unregistered"]
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace())
    assert "cudaHostRegister" in gpu.pin(torch.empty(8, dtype=torch.uint8))
