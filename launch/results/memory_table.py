"""`onward check --memory`: what the tensors of every training process take, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from launch.plan.account import ProcessAccount
from launch.plan.process_memory import process_memory
from pipeline.config import Config
from pipeline.errors import UserError, first_line
from workers.topology.processes import stage_groups

COLUMNS = ("stage", "parameters", "optimizer", "gradients", "kept for backward", "snapshot", "most at once", "when")
EXACT = (
    "bytes that PyTorch's allocator hands out on the CPU in any step but the first, at their most. On a GPU this is an "
    "estimate: its kernels need other workspaces, and CUDA and the libraries about 0.5 GiB beside it"
)
BESIDE = "not in it: batches that wait on links, copies for snapshots, evaluation, memory of the process itself"


def memory_lines(config: Config) -> Iterator[str]:
    """A table with a row per stage, and what its numbers mean.

    Raises:
        UserError: an operation of a network or a loss of the user's own cannot be computed without memory.
    """
    groups = [tuple(range(1, config.num_stages + 1))] if config.in_one_process else stage_groups(config)
    rows: list[tuple[str, ...]] = [COLUMNS]
    for group in groups:
        rows += _rows(_measured(config, group), config.replicas_of(group[0]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield f"memory: {EXACT}"
    yield BESIDE


def _rows(process: ProcessAccount, replicas: int) -> Iterator[tuple[str, ...]]:
    for stage in process.stages:
        held = (stage.parameters, stage.optimizer, stage.gradients, stage.kept, stage.snapshot)
        peak = (size_of(process.peak), process.moment) if stage is process.stages[0] else ("together", "")
        name = f"{stage.stage}" + (f" (each of {replicas} replicas)" if replicas > 1 else "")
        yield (name, *map(size_of, held), *peak)


def size_of(count: int) -> str:
    """A number of bytes in MiB, or in GiB from one GiB on."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _measured(config: Config, group: tuple[int, ...]) -> ProcessAccount:
    try:
        return process_memory(config, group)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        names = ", ".join(map(str, group))
        raise UserError(
            f"--memory: stage {names} cannot be computed on tensors without memory ({first_line(error)[:200]}). "
            "Check without --memory"
        ) from error
