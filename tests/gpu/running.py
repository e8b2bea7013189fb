"""Runs of `onward train` on the device, and measurements in processes of their own, each with a limit of time.

What breaks a GPU's context, or hangs, ends with its process and costs one row.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gpu.setting import Setting
from tests.runs import Process, report, start


class RowFailed(Exception):
    """Why a row has no value, in one line."""


@contextmanager
def folder() -> Iterator[Path]:
    """A new one, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="onward-gpu-", ignore_cleanup_errors=True) as place:
        yield Path(place)


def train(setting: Setting, place: Path, *overrides: str, config: Path | None = None) -> dict[str, Any]:
    """`onward train` to its end, in `place`; the report, on the tiny network unless a configuration is given.

    Raises:
        RowFailed: it failed, or took too long.
    """
    process = start(place, f"device={setting.of_runs}", *overrides, config=config, forked=setting.forked)
    finish(process, "the run", setting.seconds)
    return report(place)


def measured(setting: Setting, name: str, **arguments: Any) -> dict[str, Any]:
    """What `tests.gpu.child` measures under that name.

    Raises:
        RowFailed: it failed, or took too long.
    """
    question = json.dumps({"name": name, "setting": setting.to_message(), "arguments": arguments})
    process = Process([sys.executable, "-m", "tests.gpu.child", question], forked=setting.forked)
    finish(process, name, setting.seconds)
    value: dict[str, Any] = json.loads(process.out.strip().splitlines()[-1])
    return value


def finish(process: Process, what: str, limit: float) -> None:
    """Wait for its end, and end it.

    Raises:
        RowFailed: it failed, or takes longer than `limit` seconds.
    """
    try:
        process.wait(limit)
    except AssertionError:
        process.kill()
        raise RowFailed(f"{what} took longer than {limit:g} s") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        lines = [line.strip() for line in process.err.splitlines() if line.strip()] or ["it said nothing"]
        told = next((line for line in lines if line.startswith(("error:", "torch.OutOfMemoryError"))), lines[-1])
        raise RowFailed(f"{what} ended with exit code {process.returncode}: {told}"[:300])
