"""Floating-point operations of a step, and what runs of `onward train` reach of them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pipeline.config import Config
from pipeline.serial import build_stages, step_function
from tests.benchmarks.common.runs import steps
from tests.gpu.networks import file_of, parsed
from tests.gpu.running import folder, train
from tests.gpu.setting import Setting
from tests.launch.plan.measured import random_batch
from workers.run.compute import set_up_compute

COUNTED = 4
"""Images of the step that is counted; every operation of it is a multiple of the batch."""
PROCESSES = {"two processes": 2, "four processes": 4}
WAYS: dict[str, tuple[str, ...]] = {
    "end to end": ("mode=end_to_end",),
    "serial": ("runtime=serial",),
    "two processes": ("processes=2",),
    "four processes": (),
}


def flop_counter() -> FlopCounterMode:
    """Torch's, which knows the attention of GPUs, with that of CPUs."""
    aten = torch.ops.aten
    of_cpu = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=of_cpu)


def flops(setting: Setting, network: str) -> dict[str, Any]:
    """Of one image in a step: of all four blocks and of each, and of end-to-end training."""
    small = parsed(network, setting, data={"batch_size": COUNTED})
    blocks = [number / COUNTED for number in _counted(small, setting)]
    whole = parsed(network, setting, data={"batch_size": COUNTED}).model_copy(update={"mode": "end_to_end"})
    return {"blocks": blocks, "blockwise": sum(blocks), "end_to_end": sum(_counted(whole, setting)) / COUNTED}


def _counted(config: Config, setting: Setting) -> list[int]:
    """FLOPs until the report of each stage."""
    set_up_compute(config)
    device = torch.device(setting.of_tensors)
    stages = build_stages(config, 1, device)
    reports = step_function(config, stages, device)(
        stages, random_batch(config, 1, 0).to(device), 0, [1.0] * len(stages)
    )
    found = []
    for _ in stages:
        with flop_counter() as counted:
            next(reports)
        found.append(counted.get_total_flops())
    return found


def rate(setting: Setting, network: str, way: str, count: int) -> dict[str, Any]:
    """Images/s of a run of `count` steps, without its first third."""
    with folder() as place:
        overrides = (f"train.max_steps={count}", *WAYS[way])
        report = train(setting, place, *overrides, config=file_of(network, setting, place))
        times = [line["time"] for line in steps(place / "run")]
    first = count // 3
    return {
        "images_per_second": setting.batch * (count - 1 - first) / max(times[-1] - times[first], 1e-9),
        "feed_wait_share": report["feed"]["wait_share"],
        "busy_shares": [stage["busy"] for stage in report["stages"]],
        "digests": [report["final_digest"]],
        "batch": setting.batch,
        "processes": PROCESSES.get(way, 1),
    }
