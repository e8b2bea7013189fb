"""Reads what `torch.save` wrote, in a process without rights that converts it to safetensors.

A pickle is a program. So nothing that trains or has secrets reads one: a process does that lives for this alone, whose
result is a safetensors file in memory, looked at like any other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from pipeline.data.sets.memory import available_bytes
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read, open_unnamed_file
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import last_answer

SECONDS = 3600.0
"""Limit for one file."""
KEPT = (
    "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "TMPDIR",
)  # fmt: skip
"""Variables that the process is given; the others may hold keys."""
ALONE = {"PYTHONNOUSERSITE": "1"}
"""Keeps the user's own packages out of it."""


@dataclass(frozen=True)
class Converted:
    """What the process says of a file.

    Args:
        nested: the keys that lead to the weights, such as `model`; empty where they lie open.
        beside: what lies beside them, and was left.
        isolation: what was taken from the process, in words.
    """

    nested: str = ""
    beside: list[str] = field(default_factory=list)
    isolation: list[str] = field(default_factory=list)


_CONVERTED = TypeAdapter(Converted)


@contextmanager
def converted(path: Path) -> Iterator[tuple[BinaryIO, Converted]]:
    """The tensors of a file of `torch.save` as an open safetensors file in memory, and what is said of them.

    Raises:
        UserError: it holds anything but plain tensors, is damaged, or is too large.
    """
    try:
        source = open_to_read(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
    with source, os.fdopen(open_unnamed_file("onward-weights"), "w+b") as output:
        size, have = os.fstat(source.fileno()).st_size, available_bytes()
        if have is not None and 2 * size > have:
            raise UserError(f"'{path}' has {size / 1e9:.1f} GB, and {have / 1e9:.1f} GB of memory are available")
        answer = _ask(source.fileno(), output.fileno())
        if "problem" in answer:
            problem = str(answer["problem"])[:300].rstrip(".")
            raise UserError(f"'{path}' was refused: {problem}. Save the weights alone: torch.save(model.state_dict())")
        try:
            yield output, _CONVERTED.validate_python(answer)
        except ValidationError:
            raise UserError(f"'{path}' was refused: what reads it gave no proper answer") from None


def _ask(source: int, output: int) -> dict[str, Any]:
    """The answer of the process; a problem in words where it gave none."""
    reader, writer = os.pipe()
    environment = process_environment(threads=1)
    process = subprocess.Popen(
        interpreter("workers.weights.unpickling", str(source), str(output), str(writer)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[source, output, writer],
        env={**ALONE, **{name: environment[name] for name in KEPT if name in environment}},
        start_new_session=True,
    )
    os.close(writer)
    try:
        answer = last_answer(reader, SECONDS, process.kill, process.wait)
    finally:
        os.close(reader)
    if answer.message is not None:
        return answer.message
    if answer.late:
        return {"problem": f"reading it took more than {SECONDS:g} s"}
    return {"problem": f"what reads it has ended without an answer ({_ended(answer.code)})"}


def _ended(code: int) -> str:
    return f"signal {-code}, as when memory or time runs out" if code < 0 else f"exit code {code}"
