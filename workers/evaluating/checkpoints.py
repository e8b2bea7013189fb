"""The network that is evaluated: a run's trained weights, or those of one of its snapshots.

A file is opened only if its snapshot's manifest lists its digest, and a tensor is read only if it fits the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from pipeline.errors import ConfigError, UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import network_misfit, network_names
from workers.run.files import RunDir, step_numbers
from workers.run.tensor_files import facts_of, open_tensors
from workers.snapshots.initial import begin
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest
from workers.snapshots.parts import PartName

BLOCK = "block."
"""Begins the name of every tensor of a stage's block."""


def load_network(run: RunDir, stages: Sequence[Stage], steps: int | None, note: Callable[[str], None]) -> None:
    """Fill `stages` with weights and buffers of a run; the optimizer's state stays on the disk.

    Args:
        run: where they are.
        stages: the whole network.
        steps: of the snapshot to take; None for the trained network.
        note: called with a sentence if some blocks had not begun to train at that snapshot.

    Raises:
        ConfigError: there is no such snapshot, or no trained network.
        UserError: a file is damaged, or of another architecture.
    """
    files = _files(run, len(stages), steps, note)
    begin(run, [stage for stage in stages if stage.index not in files])
    for stage in stages:
        if stage.index in files:
            _load(run, stage, files[stage.index])


def load_blocks(run: RunDir, blocks: Sequence[nn.Module], steps: int | None, note: Callable[[str], None]) -> None:
    """As `load_network`, for the blocks alone, without heads and losses.

    Args:
        run, steps, note: as there.
        blocks: all of the network, in order.
    """
    files = _files(run, len(blocks), steps, note)
    for index, block in enumerate(blocks, 1):
        path = files.get(index, PartName("initial", index).path(run))
        if path.is_file():
            _load(run, block, path, BLOCK)


def snapshot_steps(run: RunDir) -> list[int]:
    """After how many steps there are complete snapshots, in order."""
    return [steps for steps in step_numbers(run) if (run.snapshot(steps) / MANIFEST).is_file()]


def _files(run: RunDir, count: int, steps: int | None, note: Callable[[str], None]) -> dict[int, Path]:
    """The file of every block, by its number; at a snapshot, of those that had begun to train."""
    return _trained_files(run, count) if steps is None else _snapshot_files(run, count, steps, note)


def _trained_files(run: RunDir, count: int) -> dict[int, Path]:
    files = {index: run.stage(index) for index in range(1, count + 1)}
    for path in files.values():
        if not path.is_file():
            available = snapshot_steps(run)
            problem = f"'{path}' does not exist: this run has not been trained to its end"
            if not available:
                raise UserError(f"{problem}, and it has no snapshots. Train it first")
            remedy = f"Its newest snapshot is after {available[-1]} steps: give evaluation.checkpoint={available[-1]}"
            raise ConfigError("evaluation.checkpoint", problem, remedy)
    return files


def _snapshot_files(run: RunDir, count: int, steps: int, note: Callable[[str], None]) -> dict[int, Path]:
    available = snapshot_steps(run)
    if steps not in available:
        some = (
            f"There are snapshots after {', '.join(map(str, available))} steps" if available else "It has no snapshots"
        )
        trained = run.stage(count).is_file()
        remedy = f"{some}{'; leave it out for the trained network' if trained else ''}"
        raise ConfigError("evaluation.checkpoint", f"'{run.path}' has no snapshot after {steps} steps", remedy)
    folder = run.snapshot(steps)
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest)
    except UserError as error:
        others = [number for number in available if number != steps]
        remedy = f"Give evaluation.checkpoint={others[-1]}" if others else "It has no other snapshot"
        raise ConfigError("evaluation.checkpoint", str(error), remedy) from None
    unlearned = [index for index in range(1, count + 1) if index not in manifest.stages]
    if unlearned:
        which = f"block {unlearned[0]}" if len(unlearned) == 1 else f"blocks {unlearned[0]} to {unlearned[-1]}"
        note(f"after {steps} steps {which} had not begun to learn: measured as initialised")
    return {index: folder / stage.file for index, stage in manifest.stages.items() if index <= count}


def _load(run: RunDir, module: nn.Module, path: Path, prefix: str = "") -> None:
    """Compares the header with the network before memory is allocated for a tensor.

    Args:
        run, path: of the file.
        module: a stage, or the part of one whose tensors begin with `prefix`.
        prefix: of the names in the file.
    """
    network = {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
    try:
        with open_tensors(path, run.path) as file:
            facts = facts_of(file)
            names = [name for name in network_names(file.keys()) if name.startswith(prefix)]
            problem = network_misfit(network, {name: facts[name] for name in names})
            tensors = {} if problem else {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' cannot be read ({error}). Train the run again") from None
    if problem:
        raise UserError(
            f"'{path}' does not fit the network of the run's config.yaml: {problem}. Restore either of them"
        )
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
