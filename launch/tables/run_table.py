"""What `onward check` prints: the resolved configuration, and as comments what the run amounts to."""

from __future__ import annotations

from collections.abc import Sequence

from launch.prepare.preflight import RunPlan
from pipeline.config import Config
from pipeline.errors import printable
from pipeline.shapes import boundary_shapes
from pipeline.validation.loading import dump_config
from workers.topology.processes import training_processes


def checked(config: Config, plan: RunPlan, notes: Sequence[str]) -> str:
    """YAML that `train` reads, and comments: stages, processes, steps, images, notes."""
    told = [f"note: {printable(note)}" for note in (*notes, *plan.notes)]
    lines = [*_stages(config, plan), *_processes(config), *_amounts(config, plan), *told]
    return dump_config(config) + "\n".join(f"# {line}" for line in lines)


def _stages(config: Config, plan: RunPlan) -> list[str]:
    """Columns: stage, device, units, output shape."""
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
    everyone = training_processes(config)
    names = ", ".join(f"{member.rank}: {member.name}" for member in everyone)
    return [f"processes by rank (torchrun --nproc-per-node={len(everyone)}): {names}"]


def _amounts(config: Config, plan: RunPlan) -> list[str]:
    steps = f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all"
    classes = f" of {plan.num_classes} classes" if plan.num_classes else ""
    tests = "" if plan.num_test_images is None else f"; {plan.num_test_images} test images"
    return [
        f"{plan.num_images - plan.num_broken} images{classes}{tests}",
        f"batches of {config.data.batch_size}: {steps}",
    ]
