"""What computing again costs and saves: seconds of a step, and bytes kept for its backward pass, of every block.

    python tests/benchmarks/recompute.py [--backbone resnet50] [--size 64] [--batch 8] [--views 2] [--rounds 5] \\
        [--dtype fp32] [--chunk 4] [--projector 512 512] [--device cpu]

In every round each way to compute takes one step, one after the other in an order that changes; the ratios are of the
same round. Bytes are what autograd keeps when the backward pass begins, without the weights, on the same step.
`slices` is `head.chunk` beside `units`. The weights after the last step are compared: all but `slices` must be equal.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from statistics import median
from typing import Any

import torch
from common.kept_bytes import kept_bytes
from common.runs import machine
from torch import Tensor

from pipeline.data.packing import pack
from pipeline.shapes import view_shapes
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from pipeline.validation.loading import parse_config

WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "units": {"memory": {"recompute": "units"}},
    "views": {"memory": {"recompute": "views"}},
    "slices": {"memory": {"recompute": "units"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--projector", type=int, nargs="+", default=[512, 512], help="small, so that a CPU gets done")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, nargs="+", help="numbers of blocks; all if not given")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print(f"{given.backbone}, {given.views} views of {given.size} pixels, batches of {given.batch}, {given.dtype}")
    print("block  way       seconds  / none   MiB kept  none /")
    count = parse_config(settings(given, {})).num_stages
    for index in given.blocks or range(1, count + 1):
        one_block(given, index)


def settings(given: argparse.Namespace, way: dict[str, Any]) -> dict[str, Any]:
    model = {"backbone": given.backbone} | ({"stem": "imagenet"} if given.backbone.startswith("res") else {})
    data = {"batch_size": given.batch, "image_size": given.size, "views": [{"count": given.views}]}
    values = {"model": model, "data": data, "precision": {"dtype": given.dtype}, **way}
    return {**values, "head": {"projector": given.projector, **way.get("head", {})}}


def one_block(given: argparse.Namespace, index: int) -> None:
    stages = {}
    for name, way in WAYS.items():
        head = {"head": {"chunk": given.chunk}} if name == "slices" else {}
        stages[name] = Stage(parse_config(settings(given, {**way, **head})), index, 100, torch.device(given.device))
    config = parse_config(settings(given, {}))
    source = torch.Generator(given.device).manual_seed(0)
    shapes = view_shapes(config, index, (given.size,) * given.views)
    batch = pack([drawn((given.batch, *shape), index == 1, source, given.dtype) for shape in shapes], packed=False)
    kept = {name: kept_bytes(stage, partial(one_step, stage, batch, 0)) for name, stage in stages.items()}
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(given.rounds):
        names = list(stages)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            one_step(stages[name], batch, number + 1)
            if given.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        ratio = median(own / base for own, base in zip(values, seconds["none"], strict=True))
        print(
            f"{index:5}  {name:8} {median(values):8.3f}  {ratio:6.2f}   {kept[name] / 2**20:8.1f}  "
            f"{kept['none'] / max(kept[name], 1):6.1f}",
            flush=True,
        )
    weights = {name: stage_tensors(stage) for name, stage in stages.items()}
    for name in ("units", "views"):
        equal = all(torch.equal(weights[name][key], value) for key, value in weights["none"].items())
        print(f"       {name} / none: the weights are {'equal to the bit' if equal else 'DIFFERENT'}")


def drawn(shape: tuple[int, ...], images: bool, source: torch.Generator, dtype: str) -> Tensor:
    if images:
        return torch.randint(0, 256, shape, generator=source, dtype=torch.uint8, device=source.device)
    half = torch.bfloat16 if dtype == "bf16" else torch.float32
    return torch.randn(shape, generator=source, device=source.device).relu().to(half)


def one_step(stage: Stage, batch: Tensor, step: int) -> None:
    stage(batch, step, 0.25)
    stage.update(step)


if __name__ == "__main__":
    main()
