"""The network that is evaluated: a run's trained weights, or those of one of its snapshots.

A file is opened only if its snapshot's manifest lists its digest, and a tensor is read only if it fits the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError

from pipeline.errors import ConfigError, UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import network_misfit, network_names
from workers.run.files import RunDir, step_numbers
from workers.run.tensor_files import facts_of, open_tensors
from workers.snapshots.initial import begin
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest


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
    if steps is None:
        _load_trained(run, stages)
    else:
        _load_snapshot(run, stages, steps, note)


def snapshot_steps(run: RunDir) -> list[int]:
    """After how many steps there are complete snapshots, in order."""
    return [steps for steps in step_numbers(run) if (run.snapshot(steps) / MANIFEST).is_file()]


def _load_trained(run: RunDir, stages: Sequence[Stage]) -> None:
    for stage in stages:
        path = run.stage(stage.index)
        if not path.is_file():
            available = snapshot_steps(run)
            problem = f"'{path}' does not exist: this run has not been trained to its end"
            if not available:
                raise UserError(f"{problem}, and it has no snapshots. Train it first")
            remedy = f"Its newest snapshot is after {available[-1]} steps: give evaluation.checkpoint={available[-1]}"
            raise ConfigError("evaluation.checkpoint", problem, remedy)
        _load(run, stage, path)


def _load_snapshot(run: RunDir, stages: Sequence[Stage], steps: int, note: Callable[[str], None]) -> None:
    available = snapshot_steps(run)
    if steps not in available:
        some = (
            f"There are snapshots after {', '.join(map(str, available))} steps" if available else "It has no snapshots"
        )
        trained = run.stage(len(stages)).is_file()
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
    unlearned = [stage.index for stage in stages if stage.index not in manifest.stages]
    if unlearned:
        which = f"block {unlearned[0]}" if len(unlearned) == 1 else f"blocks {unlearned[0]} to {unlearned[-1]}"
        note(f"after {steps} steps {which} had not begun to learn: measured as initialised")
    begin(run, [stage for stage in stages if stage.index in unlearned])
    for stage in stages:
        if stage.index in manifest.stages:
            _load(run, stage, folder / manifest.stages[stage.index].file)


def _load(run: RunDir, stage: Stage, path: Path) -> None:
    """Compares the header with the network before memory is allocated for a tensor."""
    network = stage.state_dict()
    try:
        with open_tensors(path, run.path) as file:
            facts, names = facts_of(file), network_names(file.keys())
            problem = network_misfit(network, {name: facts[name] for name in names})
            tensors = {} if problem else {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' cannot be read ({error}). Train the run again") from None
    if problem:
        raise UserError(
            f"'{path}' does not fit the network of the run's config.yaml: {problem}. Restore either of them"
        )
    stage.load_state_dict(tensors)
