"""An NVIDIA GPU as a queue link uses it: CUDA IPC, copies in a stream of its own, and pinned host memory.

All of it is public: `cuda.bindings.runtime` (NVIDIA's package, which PyTorch's builds for CUDA depend on) for memory,
`torch.cuda.Event` for marks. A ring is allocated by `cudaMalloc` itself and not by PyTorch, for three reasons: what
PyTorch allocates can be shared by private methods alone; it is then not freed before every reader has said so, which a
killed one never does, and the count of readers is a file in /dev/shm; and with `expandable_segments` other rules hold
for its segments, for a ring of its own they do not.

`cudaIpcOpenMemHandle` maps memory in a context of this process on the other GPU, which takes about half a GB there
(`launch.plan.devices`). Sharing needs a common IPC and PID namespace; `slot_choice` looks at that.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import first_line
from workers.links.gpu import GpuError, LinkGpu, RingMemory, SharedMark

NEEDED = ("cudaMalloc", "cudaFree", "cudaSetDevice", "cudaIpcGetMemHandle", "cudaIpcOpenMemHandle",
          "cudaIpcCloseMemHandle", "cudaIpcMemHandle_t", "cudaIpcMemLazyEnablePeerAccess", "cudaGetErrorString",
          "CUDA_IPC_HANDLE_SIZE")  # fmt: skip
"""What is used of `cuda.bindings.runtime`."""
OF_EVENTS = ("ipc_handle", "from_ipc_handle", "record", "query")
"""What is used of `torch.cuda.Event`."""
PORTABLE = 1
"""`cudaHostRegisterPortable`: pinned for every context of the process."""


class CudaGpu(LinkGpu):
    """See `LinkGpu`; opened where CUDA works, for one end of a link."""

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device, self.uuid = torch.device("cuda", index), _uuid(index)
        self._streams: dict[int, Any] = {}
        self._fetched: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def refusal(self) -> str:
        """See `LinkGpu.refusal`."""
        return missing_parts()

    def out_of_reach(self, uuid: str) -> str:
        """See `LinkGpu.out_of_reach`."""
        index = _index_of(uuid)
        if index is None:
            return f"the other's GPU {uuid} is hidden from this process (CUDA_VISIBLE_DEVICES)"
        if index != self.device.index and not torch.cuda.can_device_access_peer(self.device.index, index):
            return f"no peer access from GPU {self.uuid} to {uuid}"
        return ""

    def allocate(self, nbytes: int) -> RingMemory:
        """See `LinkGpu.allocate`."""
        return _OwnMemory(self.device, nbytes)

    def attach(self, uuid: str, handle: bytes, nbytes: int) -> RingMemory:
        """See `LinkGpu.attach`."""
        return _OthersMemory(_visible(uuid), handle, nbytes)

    def mark(self) -> SharedMark:
        """See `LinkGpu.mark`."""
        event: Any = torch.cuda.Event(interprocess=True)  # type: ignore[no-untyped-call]
        return _CudaMark(self.device, event)

    def open_mark(self, uuid: str, handle: bytes) -> SharedMark:
        """See `LinkGpu.open_mark`."""
        device = _visible(uuid)
        try:
            event: Any = torch.cuda.Event.from_ipc_handle(device, handle)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise GpuError(f"an event of the other process cannot be opened: {first_line(error)}") from None
        return _CudaMark(device, event)

    def copy(self, source: Tensor, target: Tensor, arrived: SharedMark | None = None) -> None:
        """See `LinkGpu.copy`.

        A copy from one GPU to another is ordered by PyTorch behind and before the current streams of both, so the copy
        has a stream on each.
        """
        own = self._stream(self.device)
        own.wait_stream(torch.cuda.current_stream(self.device))
        other = self._stream(target.device) if target.is_cuda else own
        with torch.cuda.stream(other), torch.cuda.stream(own):
            target.copy_(source, non_blocking=True)
        if isinstance(arrived, _CudaMark):
            arrived.event.record(other)
        if source.is_cuda:
            source.record_stream(own)  # its memory is not given to others before

    def fetch(self, source: Tensor) -> Tensor:
        """See `LinkGpu.fetch`."""
        target = torch.empty(source.shape, dtype=source.dtype, device=self.device)
        target.copy_(source, non_blocking=True)
        self._fetched.record(torch.cuda.current_stream(self.device))
        return target

    def finish(self) -> None:
        """See `LinkGpu.finish`."""
        for stream in self._streams.values():
            stream.synchronize()
        self._fetched.synchronize()

    def copied(self) -> bool:
        """See `LinkGpu.copied`."""
        return all(stream.query() for stream in self._streams.values())

    def pin(self, memory: Tensor) -> str:
        """See `LinkGpu.pin`."""
        try:
            with torch.cuda.device(self.device):
                runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
                code = runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, PORTABLE)
            return "" if int(code) == 0 else f"cudaHostRegister: {runtime.cudaGetErrorString(code)}"
        except (RuntimeError, AttributeError) as error:
            return first_line(error)

    def unpin(self, memory: Tensor) -> None:
        """See `LinkGpu.unpin`; a mapping that goes away is unpinned in any case."""
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        runtime.cudaHostUnregister(memory.data_ptr())

    def page(self, nbytes: int) -> Tensor:
        """See `LinkGpu.page`."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def _stream(self, device: torch.device) -> Any:
        index = device.index
        if index not in self._streams:
            self._streams[index] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[index]


class _CudaMark:
    def __init__(self, device: torch.device, event: Any) -> None:
        self._device, self.event = device, event

    @property
    def handle(self) -> bytes:
        with torch.cuda.device(self._device):  # on which the event is made when it is exported
            return bytes(self.event.ipc_handle())

    def record(self) -> None:
        self.event.record(torch.cuda.current_stream(self._device))

    def reached(self) -> bool:
        return bool(self.event.query())


class _OwnMemory:
    """Allocated by this process, for others to open."""

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._device, runtime = device, _runtime()
        with torch.cuda.device(device):
            self._pointer: int | None = int(_checked(device, "cudaMalloc", nbytes))
            try:
                exported = _checked(device, "cudaIpcGetMemHandle", self._pointer)
            except GpuError:
                self.release()
                raise
        self.handle = ctypes.string_at(int(exported.getPtr()), runtime.CUDA_IPC_HANDLE_SIZE)
        self.whole = _as_tensor(self._pointer, nbytes, device)

    def release(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            with torch.cuda.device(self._device):
                _checked(self._device, "cudaFree", pointer)


class _OthersMemory:
    """Allocated by another process, and mapped into this one."""

    def __init__(self, device: torch.device, handle: bytes, nbytes: int) -> None:
        runtime = _runtime()
        if len(handle) != runtime.CUDA_IPC_HANDLE_SIZE:
            raise GpuError(f"a handle of {len(handle)} bytes is none of memory")
        self._device, self.handle = device, handle
        imported = runtime.cudaIpcMemHandle_t()
        ctypes.memmove(int(imported.getPtr()), handle, len(handle))
        flags = runtime.cudaIpcMemLazyEnablePeerAccess
        with torch.cuda.device(device):
            self._pointer: int | None = int(_checked(device, "cudaIpcOpenMemHandle", imported, flags))
        self.whole = _as_tensor(self._pointer, nbytes, device)

    def release(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            with torch.cuda.device(self._device):
                _checked(self._device, "cudaIpcCloseMemHandle", pointer)


class _Pointer:
    """Memory of a GPU as other libraries are shown it, from which torch makes a tensor without a copy."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (pointer, False), "strides": None, "version": 3,
        }  # fmt: skip


def missing_parts() -> str:
    """Why memory of a GPU cannot be shared by the libraries that are installed; empty if nothing is missing."""
    if sys.platform != "linux" or torch.version.hip is not None:
        return "CUDA IPC is there on Linux with a GPU of NVIDIA"
    try:
        runtime = _runtime()
    except GpuError as error:
        return str(error)
    for holder, name in ((runtime, "cuda.bindings.runtime"), (torch.cuda.Event, "torch.cuda.Event")):
        gone = [part for part in (NEEDED if holder is runtime else OF_EVENTS) if not hasattr(holder, part)]
        if gone:
            return f"{name} has no {' and no '.join(gone)} any more"
    return ""


@functools.cache
def _runtime() -> ModuleType:
    try:
        from cuda.bindings import runtime
    except (ImportError, RuntimeError) as error:
        raise GpuError(f"the package cuda-bindings cannot be loaded ({first_line(error)})") from None
    found: ModuleType = runtime
    return found


def _checked(device: torch.device, name: str, *arguments: Any) -> Any:
    """The result of a call on a device, which the caller has made the current one. Raises `GpuError`."""
    runtime = _runtime()
    for call, given in (("cudaSetDevice", (device.index,)), (name, arguments)):
        code, *results = getattr(runtime, call)(*given)  # the package has a current device of its own
        if int(code) != 0:
            _, text = runtime.cudaGetErrorString(code)
            raise GpuError(f"{call}: {text.decode() if isinstance(text, bytes) else text}")
    return results[0] if results else None


def _as_tensor(pointer: int, nbytes: int, device: torch.device) -> Tensor:
    try:
        tensor = torch.as_tensor(_Pointer(pointer, nbytes), device=device)
    except RuntimeError as error:
        raise GpuError(f"shared memory cannot be made a tensor: {first_line(error)}") from None
    if tensor.data_ptr() != pointer:  # it was copied to another GPU than CUDA says that it is on
        raise GpuError("shared memory is not on the GPU that it was said to be on")
    return tensor


def _uuid(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).uuid)


def _index_of(uuid: str) -> int | None:
    """The index that a GPU has in this process, which another may see under another one."""
    return next((index for index in range(torch.cuda.device_count()) if _uuid(index) == uuid), None)


def _visible(uuid: str) -> torch.device:
    index = _index_of(uuid)
    if index is None:
        raise GpuError(f"GPU {uuid} is hidden from this process")
    return torch.device("cuda", index)
