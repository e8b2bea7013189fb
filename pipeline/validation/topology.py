"""Checks across the keys of processes, replicas, engines, restarts and fault injection."""

from __future__ import annotations

from pipeline.config import Config, StageConfig
from pipeline.config.engines import DeepSpeedEngineConfig
from pipeline.config.objectives import BYOLConfig
from pipeline.config.optimizers import AdamWConfig, LayerWiseConfig
from pipeline.errors import ConfigError

NEARBY = 10_000
"""Numbers of replicas that are tried in each direction, to name one that would do."""


def check_topology(config: Config) -> None:
    """Raises `ConfigError` for the first combination that cannot work."""
    _check_processes(config)
    _check_restart(config)
    _check_faults(config)
    for index in range(1, config.num_stages + 1):
        stage = config.stage(index)
        _check_replicas(config, stage)
        _check_engine(config, stage)
    if config.mode == "end_to_end" and config.link.codec != "none":
        problem = f"got '{config.link.codec}', and in mode end_to_end nothing travels over a link"
        raise ConfigError("link.codec", problem, "Give link.codec=none")


def key_of(config: Config, stage: StageConfig, section: str, key: str) -> str:
    """The dotted path at which this value of a stage was given: its override, or the common section."""
    overrides = config.stages.get(stage.index)
    own = overrides is not None and key in getattr(overrides, section)
    return f"stages.{stage.index}.{section}.{key}" if own else f"{section}.{key}"


def _key(config: Config, index: int, key: str) -> str:
    overrides = config.stages.get(index)
    return f"stages.{index}.{key}" if overrides and getattr(overrides, key) else key


def _check_processes(config: Config) -> None:
    if config.processes is None:
        return
    if config.in_one_process:
        problem = f"got {config.processes}, and this run is trained in one process (runtime, mode)"
        raise ConfigError("processes", problem, "Leave it out, or give runtime=pipelined")
    if config.processes > config.num_stages:
        problem = f"got {config.processes}, and there are {config.num_stages} stages to share"
        raise ConfigError("processes", problem, f"Give 1 to {config.num_stages}; stages.K.replicas shares one stage")


def _check_replicas(config: Config, stage: StageConfig) -> None:
    count, path = stage.replicas, _key(config, stage.index, "replicas")
    if count == 1:
        return
    if config.in_one_process:
        raise ConfigError(path, f"got {count}, and this run is trained in one process", "Give runtime=pipelined, or 1")
    if config.processes is not None:
        problem = f"got {count}, and processes={config.processes} puts several stages into one process"
        raise ConfigError(path, problem, "Give one of them")
    if not config.data.drop_last:
        problem = f"got {count}, and the smaller batch at the end of an epoch cannot be shared evenly"
        raise ConfigError(path, problem, "Give data.drop_last=true")
    if not _is_shared_evenly(batch := config.data.batch_size, count):
        problem = f"{count} replicas cannot share a batch of {batch} evenly, two images or more each"
        raise ConfigError(path, problem, _nearest_that_share(batch, count))
    if stage.precision.compile:
        problem = f"got {count}, and a compiled network cannot wait for the other replicas' batch statistics"
        raise ConfigError(path, problem, "Give precision.compile=false for this stage, or 1 replica")


def _is_shared_evenly(batch: int, count: int) -> bool:
    return batch % count == 0 and batch // count >= 2


def _nearest_that_share(batch: int, count: int) -> str:
    """A remedy: the nearest numbers of replicas for this batch, and the nearest batches for this number."""
    most = min(count - 1, batch // 2)
    fewer, more = range(most, max(most - NEARBY, 0), -1), range(count + 1, min(count + NEARBY, batch // 2 + 1))
    counts = [next((n for n in numbers if _is_shared_evenly(batch, n)), None) for numbers in (fewer, more)]
    replicas = " or ".join(str(number) for number in counts if number is not None) or "1"
    batches = sorted({max(batch // count, 2) * count, max(batch // count + 1, 2) * count})
    return f"Give {replicas} replicas, or data.batch_size={' or '.join(map(str, batches))}"


def _check_restart(config: Config) -> None:
    if config.restart == "none":
        return
    if config.in_one_process:
        problem = f"got '{config.restart}', and this run is trained in one process, so no other could restart it"
        raise ConfigError("restart", problem, "Give runtime=pipelined, or restart=none")
    if config.snapshots.every is None:
        problem = f"got '{config.restart}', and without snapshots there is nothing to come back to"
        raise ConfigError("restart", problem, "Give snapshots.every, for example 100")
    if config.restart == "stage" and config.link.kind == "rpc":
        problem = "got 'stage', and torch.distributed.rpc cannot take a process back into its group"
        raise ConfigError("restart", problem, "Give link.kind=queue or p2p, or restart=job")


def _check_faults(config: Config) -> None:
    for number, fault in enumerate(config.faults):
        replicas = config.replicas_of(fault.stage) if fault.stage <= config.num_stages else 0
        if fault.stage > config.num_stages:
            problem = f"there is no stage {fault.stage}"
            raise ConfigError(f"faults.{number}.stage", problem, f"Stages are 1 to {config.num_stages}")
        if fault.replica > replicas:
            problem = f"stage {fault.stage} has no replica {fault.replica}"
            raise ConfigError(f"faults.{number}.replica", problem, f"Replicas are 1 to {replicas}")
        _check_gradient_flip(config, number)


def _check_gradient_flip(config: Config, number: int) -> None:
    fault = config.faults[number]
    stage = config.stage(fault.stage)
    if fault.kind != "flip_gradient" or not isinstance(stage.engine, DeepSpeedEngineConfig):
        return
    zero, half = stage.engine.zero_stage, stage.precision.dtype == "bf16"
    if zero or half:
        why = f"engine.zero_stage={zero}" if zero else "precision.dtype=bf16"
        problem = (
            f"got 'flip_gradient' for stage {fault.stage}, whose gradients DeepSpeed keeps in its own form ({why})"
        )
        remedy = "Give flip_weight, flip_message or flip_optimizer, or engine.kind=torch"
        raise ConfigError(f"faults.{number}.kind", problem, remedy)


def _check_engine(config: Config, stage: StageConfig) -> None:
    engine, path = stage.engine, _key(config, stage.index, "engine")
    if not isinstance(engine, DeepSpeedEngineConfig):
        return
    optimizer = stage.optimizer
    if stage.memory.recompute == "views":
        problem = "got 'views', and engine.kind=deepspeed averages gradients after one backward pass, not one per view"
        path = key_of(config, stage, "memory", "recompute")
        raise ConfigError(path, problem, "Give units or none for this stage, or engine.kind=torch")
    if config.in_one_process or config.processes is not None:
        problem = "got 'deepspeed', which wants a process for each stage"
        raise ConfigError(f"{path}.kind", problem, "Give runtime=pipelined and no processes, or engine.kind=torch")
    if isinstance(optimizer, LayerWiseConfig) and engine.zero_stage > 0:
        problem = (
            f"got {engine.zero_stage} with optimizer.kind={optimizer.kind}: ZeRO flattens parameters into one vector, "
            "so the norms of single layers, which LARS needs, would silently be lost"
        )
        remedy = "Give engine.zero_stage=0, engine.kind=torch with engine.shard_optimizer=true, or optimizer.kind=adamw"
        raise ConfigError(f"{path}.zero_stage", problem, remedy)
    if engine.offload_optimizer and not isinstance(optimizer, AdamWConfig):
        problem = f"DeepSpeed steps on the CPU with Adam only, and optimizer.kind is {optimizer.kind}"
        raise ConfigError(f"{path}.offload_optimizer", problem, "Give optimizer.kind=adamw, or false")
    if engine.offload_optimizer and engine.zero_stage == 0:
        raise ConfigError(
            f"{path}.offload_optimizer", "needs ZeRO, and engine.zero_stage is 0", "Give zero_stage 1 or 2"
        )
    if stage.precision.dtype == "fp16":
        problem = "got 'deepspeed', whose loss scaler would hide skipped steps"
        raise ConfigError(f"{path}.kind", problem, "Give precision.dtype=bf16 or fp32, or engine.kind=torch")
    if stage.precision.dtype == "bf16" and isinstance(stage.objective, BYOLConfig):
        problem = "got 'deepspeed' with bf16 parameters, too coarse for the slow target of byol to move"
        raise ConfigError(f"{path}.kind", problem, "Give precision.dtype=fp32, or engine.kind=torch")
