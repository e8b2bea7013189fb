"""What `onward plan` is asked, and what it refuses before anything is computed. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from launch.partition.constraints import Constraints
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError

MOST = 100_000
"""Devices; more is a slip of the finger."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """A question.

    Args:
        devices: how many there are, all alike.
        hosts: that have them, each as many.
        gpu: by name; None for those of this machine, or its processor.
        measure: time the parts of the network on this machine, rather than estimate.
        keep_cuts: the network stays cut where it is.
        stages: how many blocks there may be; None for as many as there are.
    """

    devices: int
    hosts: int = 1
    gpu: str | None = None
    measure: bool = False
    keep_cuts: bool = False
    stages: int | Literal["any"] | None = None


def asked(
    gpus: int | None,
    hosts: int | None = None,
    gpus_per_host: int | None = None,
    stages: str | int | None = None,
    *,
    gpu: str | None = None,
    measure: bool = False,
    keep_cuts: bool = False,
    otherwise: int | None = None,
) -> PlanRequest:
    """A question as the command line has it; `--gpus` may be left out where hosts and the GPUs of each are given.

    Args:
        gpus, hosts, gpus_per_host, stages, gpu, measure, keep_cuts: the options of these names.
        otherwise: how many devices there are where nothing says so.

    Raises:
        UserError: a number that cannot be, or two that contradict each other.
    """
    for name, number in (("--gpus", gpus), ("--hosts", hosts), ("--gpus-per-host", gpus_per_host)):
        if number is not None and not 1 <= number <= MOST:
            raise UserError(f"{name}: got {number}. Give a number from 1 to {MOST}")
    if gpus_per_host is not None and hosts is None:
        raise UserError(f"--gpus-per-host: of how many hosts is not said. Give --hosts, or --gpus {gpus or 8} alone")
    if gpus is None and (hosts is None or gpus_per_host is None) and otherwise is None:
        raise UserError("--gpus: how many devices there are is not said. Give --gpus 4, or --hosts 2 --gpus-per-host 8")
    count = gpus or (hosts * gpus_per_host if hosts and gpus_per_host else otherwise or 1)
    if hosts and gpus_per_host and count > hosts * gpus_per_host:
        has = f"{hosts} hosts of {gpus_per_host} have {hosts * gpus_per_host}"
        raise UserError(f"--gpus: got {count}, and {has}. Give as many, or leave --gpus out")
    if measure and gpu is not None:
        raise UserError("--measure: it times this machine's own device, and --gpu names another. Give one of the two")
    if keep_cuts and stages is not None:
        raise UserError("--stages: another number of blocks needs other cuts, and --keep-cuts keeps them. Give one")
    return PlanRequest(
        devices=count,
        hosts=hosts or 1,
        gpu=gpu,
        measure=measure,
        keep_cuts=keep_cuts,
        stages=_stages(stages),
    )


def _stages(text: str | int | None) -> int | Literal["any"] | None:
    if text is None or text == "any":
        return text  # type: ignore[return-value]  # of the texts, only "any"
    if not str(text).isdecimal() or int(text) < 1:
        raise UserError(f"--stages: got '{text}'. Give a number of blocks from 1, or any")
    return int(text)


def check_plannable(config: Config) -> None:
    """Raises `ConfigError` for a run in which no stage works beside another, or of which the costs say nothing."""
    if config.mode == "end_to_end":
        problem = "got 'end_to_end', where one loss reaches all blocks in one process: there is nothing to divide"
        raise ConfigError("mode", problem, "Plan a blockwise run: mode=simultaneous")
    if config.runtime == "serial":
        problem = "got 'serial', where one process trains all blocks in turn: there is nothing to divide"
        raise ConfigError("runtime", problem, "Plan it with runtime=pipelined")
    if config.mode == "sequential":
        problem = "got 'sequential', where one block learns after the other: they are never busy together"
        raise ConfigError("mode", problem, "Plan a run in which all learn: mode=simultaneous")
    frozen = [index for index in range(1, config.num_stages + 1) if config.is_frozen(index)]
    if frozen:
        problem = "got true, and a plan is made for stages that all learn"
        raise ConfigError(f"stages.{frozen[0]}.frozen", problem, "Plan it with false")


def constraints_of(config: Config, request: PlanRequest, units: Sequence[str] | None = None) -> Constraints:
    """What a plan may do.

    Replicas are allowed although the run keeps the smaller batch at the end of an epoch: a plan that has some drops it.

    Args:
        config: of the run.
        request: the question.
        units: of the network, in order, where the configuration does not name all of them.

    Raises:
        UserError: there are more devices than can be used, or more stages than units.
    """
    dropping = config.model_copy(update={"data": config.data.model_copy(update={"drop_last": True})})
    names = list(units or config.model.units())
    stages = range(1, len(names) + 1) if request.stages == "any" else None
    if isinstance(request.stages, int):
        stages = range(request.stages, request.stages + 1)
    return Constraints.of(
        dropping,
        devices=request.devices,
        hosts=request.hosts,
        keep_cuts=request.keep_cuts,
        stages=stages,
        units=names,
    )


def what_if_overrides(text: str) -> list[str]:
    """`KEY=VALUE` of each change of `--what-if`, which commas outside of brackets and quotes divide.

    Raises:
        UserError: it is empty, or one has not that form.
    """
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += 0 if quote else (sign in "[{") - (sign in "]}")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    example = "Example: --what-if stages.2.replicas=2,link.kind=p2p"
    if depth or quote:
        raise UserError(f"--what-if: '{text}' has a bracket or quote that is not closed. {example}")
    for part in parts:
        if not re.fullmatch(r"\s*[^\s=]+\s*=.*", part, re.DOTALL):
            raise UserError(f"--what-if: '{part.strip()}' is not of the form key=value. {example}")
    return [part.strip() for part in parts]
