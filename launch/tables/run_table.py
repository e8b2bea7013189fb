"""What `onward check` prints: the resolved configuration, and as comments what the run amounts to."""

from __future__ import annotations

from collections.abc import Sequence

from launch.prepare.preflight import Report
from pipeline.config import Config
from pipeline.errors import printable
from pipeline.shapes import boundary_shapes
from pipeline.validation.loading import dump_config
from workers.topology.processes import training_processes


def checked(config: Config, report: Report, notes: Sequence[str]) -> str:
    """YAML that `train` reads, and comments: stages, processes, steps, images, notes."""
    told = [f"note: {printable(note)}" for note in (*notes, *report.notes)]
    lines = [*_stages(config, report), *_processes(config), *_amounts(config, report), *told]
    return dump_config(config) + "\n".join(f"# {line}" for line in lines)


def _stages(config: Config, report: Report) -> list[str]:
    """Columns: stage, device, units, output shape."""
    shapes = boundary_shapes(config)[1:]
    axes = {5: "[V, B, C, H, W]", 4: "[V, B, N, D]", 3: "[1, B, numbers of all views]"}[len(shapes[-1])]
    rows = [("stage", "device", "units", f"output {axes}")]
    for placement, shape in zip(report.placements, shapes, strict=True):
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


def _amounts(config: Config, report: Report) -> list[str]:
    steps = f"{report.steps_per_epoch} steps an epoch, {report.total_steps} in all"
    classes = f" of {report.num_classes} classes" if report.num_classes else ""
    tests = "" if report.num_test_images is None else f"; {report.num_test_images} test images"
    return [
        f"{report.num_images - report.num_broken} images{classes}{tests}",
        f"batches of {config.data.batch_size}: {steps}",
    ]
