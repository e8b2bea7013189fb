"""What the account says that a stage takes, against what the device's allocator hands out in real steps."""

from __future__ import annotations

import gc
from typing import Any

import torch

from launch.plan.process_memory import process_memory
from pipeline.config import Config
from pipeline.stage.stage import Stage
from tests.gpu.networks import parsed
from tests.gpu.setting import Setting
from tests.launch.plan.measured import STEPS, measured_peak, random_batch
from workers.run.compute import set_up_compute


def measure(setting: Setting, network: str) -> dict[str, Any]:
    """Bytes of the tensors of every stage at most, without the batch that enters it: predicted and measured.

    On a GPU `reserved` is what its allocator took from the driver for that, and `beside` what the card has given to
    this process, or to others, in addition: the context, and the libraries' own memory.
    """
    config, on_gpu = parsed(network, setting), setting.device == "cuda"
    set_up_compute(config)
    found: dict[str, list[int]] = {"predicted": [], "measured": [], "reserved": [], "beside": []}
    for index in range(1, config.num_stages + 1):
        found["predicted"].append(process_memory(config, [index], workspaces=False, cuda=on_gpu).peak)
        if on_gpu:
            for name, number in cuda_peak(config, index, torch.device(setting.of_tensors)).items():
                found[name].append(number)
        else:
            found["measured"].append(measured_peak(config, [index]))
    return found


def cuda_peak(config: Config, index: int, device: torch.device) -> dict[str, int]:
    """Of steps 2 and 3 of one stage, as its process goes through them: forward, the output is held, update."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    batch = random_batch(config, index, 0).to(device)
    before = torch.cuda.memory_allocated(device)
    stage = Stage(config, index, 1, device)
    for step in range(STEPS):
        if step == 1:  # the first makes gradients and the optimizer's state
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        sent = None  # that of the step before is gone when the next batch comes
        sent = stage(batch, 0, 1.0)
        stage.update(0)
    torch.cuda.synchronize(device)
    del sent
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    return {
        "measured": torch.cuda.max_memory_allocated(device) - before,
        "reserved": torch.cuda.max_memory_reserved(device),
        "beside": total - free - reserved,
    }
