"""What the process without rights does: the one place in which something is unpickled, plain tensors alone.

It is started by `pickled.py`, with the file and a place for the result as open descriptors. `torch.load` with
`weights_only=True` builds tensors and containers and imports nothing that the file names; should a fault in it let more
happen, there is no network, no file and no other process to reach. What comes out is read as safetensors.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

from workers.run.json_lines import write_line
from workers.weights.rights import give_up_rights, leave_network

NESTED = ("state_dict", "model_state_dict", "model", "module", "backbone", "teacher", "net", "network")
"""Keys under which training programs keep the weights, beside an epoch and the optimizer; the first one is taken."""
DEPTH = 3
SLACK_BYTES = 1 << 30
"""Memory for all else than the tensors."""
TIMES = 3
"""How often the tensors may be in memory: as they are read, and as one of them is copied."""


def main(source: int, output: int, answers: int) -> None:
    """Convert one file, and answer in one line of JSON; never raises.

    Args:
        source, output, answers: descriptors of the file, of the result, and of a pipe.
    """
    answer: dict[str, Any]
    try:
        isolation = leave_network()
        import torch  # after that, since it starts threads
        from safetensors.torch import save  # noqa: F401  # whatever it loads, is loaded now

        torch.set_num_threads(1)
        _rehearse(torch)
        with os.fdopen(source, "rb") as file:
            size = os.fstat(source).st_size
            _check_archive(file)
            isolation += give_up_rights(2 * size + (1 << 24), TIMES * size + SLACK_BYTES)
            answer = {**_convert(torch, file, output, size), "isolation": isolation}
    except _RefusedError as error:
        answer = {"problem": str(error)}
    except MemoryError:
        answer = {"problem": "it needs more memory than weights of its size can"}
    except BaseException as error:
        answer = {"problem": _in_words(error)}
    write_line(answers, answer)


class _RefusedError(Exception):
    """Not what weights look like."""


def _rehearse(torch: Any) -> None:
    """Save and load a tensor once, so that nothing is imported later, when no file can be opened."""
    from workers.run.tensor_files import serialized

    for legacy in (False, True):
        memory = io.BytesIO()
        torch.save({"a": torch.zeros(1)}, memory, _use_new_zipfile_serialization=not legacy)
        memory.seek(0)
        torch.load(memory, map_location="cpu", weights_only=True)
    try:
        memory = io.BytesIO(b"\x80\x02cos\nsystem\n.")
        torch.load(memory, map_location="cpu", weights_only=True)
    except Exception as error:
        _in_words(error)
    b"".join(serialized({"a": torch.zeros(1)}))


def _check_archive(file: Any) -> None:
    """`torch.save` stores; an archive that is packed was made to become large."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
                raise _RefusedError(f"its entry {entry.filename!r} is compressed, which torch.save never does")
    file.seek(0)


def _convert(torch: Any, file: Any, output: int, size: int) -> dict[str, Any]:
    from workers.run.tensor_files import serialized

    loaded = torch.load(file, map_location="cpu", weights_only=True)
    found, nested, beside = _state_dict(torch, loaded)
    tensors = {str(name): _plain(torch, str(name), value) for name, value in found.items()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > 2 * size + (1 << 20):
        raise _RefusedError(f"its tensors have {total} bytes in a file of {size}: they overlap")
    for piece in serialized(tensors):
        view = memoryview(piece)
        while view:
            view = view[os.write(output, view) :]
    return {"nested": nested, "beside": beside}


def _state_dict(torch: Any, loaded: Any) -> tuple[Mapping[Any, Any], str, list[str]]:
    """The weights in what was loaded, the keys that lead to them, and what lies beside them."""
    keys: list[str] = []
    beside: list[str] = []
    while isinstance(loaded, Mapping) and len(keys) < DEPTH:
        inner = next((key for key in NESTED if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        beside += [f"{key} ({type(value).__name__})" for key, value in loaded.items() if key != inner]
        loaded = loaded[inner]
        keys.append(inner)
    if not isinstance(loaded, Mapping):
        raise _RefusedError(f"it holds a {type(loaded).__name__}, not a dictionary of tensors")
    if not loaded:
        raise _RefusedError("it holds no tensor")
    return loaded, ".".join(keys), [text[:100] for text in beside[:50]]


def _plain(torch: Any, name: str, value: Any) -> Any:
    """`value` as a tensor that has all its numbers and nothing else; raises `_RefusedError`."""
    if not isinstance(value, torch.Tensor):
        where = f", under none of {', '.join(NESTED)}" if isinstance(value, Mapping) else ""
        raise _RefusedError(f"{name!r} is a {type(value).__name__}, not a tensor{where}")
    kind = type(value)
    if kind not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_quantized:
        raise _RefusedError(f"{name!r} is no plain tensor ({kind.__name__}, {value.layout}, {value.dtype})")
    if value.device.type != "cpu":
        raise _RefusedError(f"{name!r} has no numbers (device {value.device})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise _RefusedError(f"{name!r} is {list(value.shape)}, and the file has fewer numbers than that")
    return value.detach()


def _in_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else "")
    return f"{type(error).__name__}: {named}"[:300]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
