"""`onward check`: makes every check that `train` makes, and prints what the run amounts to."""

from __future__ import annotations

from collections.abc import Sequence

from launch.commands.image_scan import scan_images
from launch.prepare.preflight import RunPlan
from launch.prepare.prepared_run import dry_run
from pipeline.config import Config
from pipeline.errors import printable
from pipeline.shapes import boundary_shapes
from pipeline.validation.loading import dump_config
from workers.topology.processes import training_processes


def check_run(config: Config, notes: Sequence[str], headers: bool = False, decode: bool = False) -> str:
    """Check a run without starting it: YAML that `train` reads, and comments on stages, processes, steps and images.

    Args:
        config: of the run.
        notes: sentences for the user, to be printed before those that are found here.
        headers: also read the header of every image file, and print which are broken.
        decode: also decode every image, likewise.

    Raises:
        ConfigError, UserError: whatever `train` would refuse.
    """
    plan = dry_run(config, lambda splits: scan_images(splits, headers, decode))
    lines = [*_stages(config, plan), *_processes(config), *_amounts(config, plan)]
    lines += [f"note: {printable(note)}" for note in (*notes, *plan.notes)]
    return dump_config(config) + "\n".join(f"# {line}" for line in lines)


def _stages(config: Config, plan: RunPlan) -> list[str]:
    """A table with the columns stage, device, units, output shape."""
    shapes = boundary_shapes(config)[1:]
    axes = {5: "[V, B, C, H, W]", 4: "[V, B, N, D]", 3: "[1, B, numbers of all views]"}[len(shapes[-1])]
    rows = [("stage", "device", "units", f"output {axes}")]
    for placement, shape in zip(plan.placements, shapes, strict=True):
        units = placement.units[0] if len(placement.units) == 1 else f"{placement.units[0]} to {placement.units[-1]}"
        rows.append((str(placement.stage), ", ".join(placement.devices), units, str(list(shape))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _processes(config: Config) -> list[str]:
    if config.in_one_process:
        return ["one process trains all stages"]
    processes = training_processes(config)
    names = ", ".join(f"{process.rank}: {process.name}" for process in processes)
    return [f"processes by rank (torchrun --nproc-per-node={len(processes)}): {names}"]


def _amounts(config: Config, plan: RunPlan) -> list[str]:
    steps = f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all"
    classes = f" of {plan.num_classes} classes" if plan.num_classes else ""
    tests = "" if plan.num_test_images is None else f"; {plan.num_test_images} test images"
    return [
        f"{plan.num_images - plan.num_broken} images{classes}{tests}",
        f"batches of {config.data.batch_size}: {steps}",
    ]
