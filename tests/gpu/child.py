"""One measurement in a process of its own: `python -m tests.gpu.child JSON`, which prints one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from tests.gpu import ahead, costs, memory, operations, plain_loop, speed
from tests.gpu.setting import Setting


def machine(setting: Setting) -> dict[str, Any]:
    """The GPUs that can be used, and the bytes of the first."""
    if not torch.cuda.is_available():
        return {"gpus": [], "memory": 0}
    count = torch.cuda.device_count()
    return {
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "memory": torch.cuda.get_device_properties(0).total_memory,
    }


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": machine,
    "flops": speed.flops,
    "plain loop": plain_loop.measure,
    "memory": memory.measure,
    "feed": costs.feed,
    "batches": ahead.measure,
    "augmentation": costs.augmentation,
    "operations": operations.measure,
}


def main() -> None:
    question = json.loads(sys.argv[1])
    setting = Setting.from_message(question["setting"])
    torch.set_num_threads(1)
    print(json.dumps(MEASUREMENTS[question["name"]](setting, **question["arguments"])))


if __name__ == "__main__":
    main()
