"""What is said that the processes of every preset take, against real ones, on small images and small batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from launch.plan.process_memory import process_memory
from pipeline.config import Config
from pipeline.validation.loading import load_config
from tests.documents import PRESETS
from tests.launch.plan.measured import measured_peaks
from tests.launch.plan.test_process_memory import LIMIT, SHARE
from tests.pipeline.replicas.replica_team import Replicas
from workers.determinism.child import run_in_child
from workers.topology.processes import stage_groups

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1200)]
PIXELS, BATCH, CHUNK, WIDEST = 64, 32, 8, 512
UNEVEN = 20
"""Images of a last batch that is smaller."""
WITH_WORKSPACES = "AVX512" in torch.backends.cpu.get_cpu_capability()
"""Those that the account knows are those of such a processor."""


def scaled(path: Path, *overrides: str) -> Config:
    """A preset with `PIXELS`, `BATCH`, slices of `CHUNK` images, and layers behind the head that are `WIDEST`."""
    said = load_config(path)
    keys = [f"data.image_size={PIXELS}", f"data.batch_size={BATCH}"]
    keys.append(f"head.projector={[min(width, WIDEST) for width in said.head.projector]}")
    if said.data.progressive:
        keys.append(f"data.progressive={{start_size: {PIXELS - 16}, start_epoch: 1, end_epoch: 2}}")
    stages = range(1, said.num_stages + 1)
    chunked = [index for index in stages if getattr(said.stage(index).head, "chunk", None)]
    keys += [f"stages.{index}.head.chunk={CHUNK}" for index in chunked]
    return load_config(path, [*keys, *overrides]).with_torch_engines()


def alone(config: Config) -> Config:
    """Without replicas, which `test_a_replica_of_a_preset` has."""
    stages = {index: own.model_copy(update={"replicas": None}) for index, own in config.stages.items()}
    return config.model_copy(update={"replicas": 1, "stages": stages})


def processes_of(config: Config) -> Iterator[tuple[int, ...]]:
    """The stages of every process."""
    if config.in_one_process:
        yield tuple(range(1, config.num_stages + 1))
    else:
        yield from stage_groups(config)


def check(config: Config, stages: tuple[int, ...], last_rows: int | None = None) -> None:
    """The account against three steps; in a child each, which hands its memory back."""
    measured = run_in_child(partial(measured_peaks, config, stages, last_rows=last_rows), 4 * LIMIT)
    assert measured.result is not None, measured
    for workspaces in (False, True)[: 1 + WITH_WORKSPACES]:
        said = run_in_child(lambda with_them=workspaces: process_memory(config, stages, with_them).peak, LIMIT)
        assert said.result is not None, said
        seen = measured.result[workspaces]
        off = f"{said.result:,} bytes said, {seen:,} handed out, stages {stages}, workspaces {workspaces}"
        assert abs(said.result - seen) <= SHARE * seen, off


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_process_of_a_preset_takes_what_it_is_said_to(path: Path) -> None:
    config = alone(scaled(path))
    for stages in processes_of(config):
        check(config, stages)


def may_recompute(path: Path) -> list[str]:
    """DeepSpeed averages gradients after one backward pass."""
    config = load_config(path)
    engines = {config.stage(index).engine.kind for index in range(1, config.num_stages + 1)}
    return ["none", "units"] if "deepspeed" in engines else ["none", "units", "views"]


@pytest.mark.parametrize(
    ("path", "recompute"),
    [pytest.param(path, way, id=f"{path.stem}-{way}") for path in PRESETS for way in may_recompute(path)],
)
def test_what_is_computed_again_is_not_kept(path: Path, recompute: str) -> None:
    config = scaled(path)
    keys = [f"stages.{index}.memory.recompute={recompute}" for index in range(1, config.num_stages + 1)]
    again = alone(scaled(path, *keys))
    check(again, next(processes_of(again)))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_smaller_last_batch_takes_no_more(path: Path) -> None:
    shared = [f"stages.{index}.replicas=1" for index in load_config(path).stages]
    config = scaled(path, "data.drop_last=false", "replicas=1", *shared)
    check(config, next(processes_of(config)), last_rows=UNEVEN)


@pytest.mark.parametrize(
    "path", [path for path in PRESETS if not load_config(path).in_one_process], ids=lambda p: p.stem
)
def test_a_replica_of_a_preset(replicas: Replicas, path: Path) -> None:
    config = scaled(path, "data.drop_last=true", "replicas=2", *("stages.1.replicas=2",), *("stages.2.replicas=2",))
    question = {"config": config.model_dump_json(), "stage": 1}
    first, _ = (int(result["peak"]) for result in replicas.run(2, "peak_of_a_replica", **question))
    said = run_in_child(lambda: process_memory(config, (1,), False).peak, LIMIT)
    assert said.result is not None, said
    assert abs(said.result - first) <= SHARE * first, f"{said.result:,} bytes said, {first:,} handed out"
