"""`onward export`: the trained backbone as one file that needs neither the run nor Onward, or as a folder."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from launch.prepare.run_dir import read_config
from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from pipeline.data.augment.evaluation_view import MARGIN
from pipeline.data.sets.memory import available_bytes
from pipeline.errors import UserError
from workers.run.files import RunDir
from workers.run.tensor_files import open_tensors, save_tensors

SUFFIX = ".safetensors"


def export_backbone(run: Path, to: Path) -> None:
    """Write the backbone of the run in `run` to the file `to`, with metadata.

    Nothing that the configuration names is imported: a module that only training needed may be gone, and a run that
    comes from somebody else must not run code here.

    Raises:
        UserError: no such run, one that has not been trained to its end, or a file that cannot be written.
    """
    config = read_config(run)
    source = RunDir(run).backbone
    if to.suffix != SUFFIX:
        problem = f"'{to}' should end with {SUFFIX}, for that is what is written: PyTorch's own reader cannot read it"
        raise UserError(f"{problem}. Give {to.with_suffix(SUFFIX)}")
    if not source.is_file():
        raise UserError(f"'{run}' has no trained backbone ('{source}'). Train it to the end first")
    if to.exists():
        raise UserError(f"'{to}' already exists. Give another file, or delete it")
    if not to.absolute().parent.is_dir():
        raise UserError(f"'{to}' cannot be written (there is no folder '{to.parent}'). Give a file in one that exists")
    tensors = _tensors(source, run)
    try:
        save_tensors(to, tensors, _metadata(config))
    except OSError as error:
        raise UserError(f"'{to}' cannot be written ({error.strerror}). Give another file") from None


def export_to(run: str, form: str, to: Path | None, block: int | None, trusted: bool) -> str:
    """Write the folder of a format, see `launch.exporting`; returns a sentence.

    Args:
        run: `RUN`, or `RUN@STEPS` for a snapshot.
        form: name of the format.
        to: the folder; `RUN/export/FORMAT-block-K` if not given.
        block: the last block of the network; the last of all if not given.
        trusted: whether a network that the configuration names may be imported although it is another user's.

    Raises:
        UserError: no such run or block, a library that is missing or has no such network, a folder that is there.
    """
    from launch.exporting.formats import export_folder, format_of
    from launch.exporting.network import read_network

    format_of(form)  # before anything is read
    network = read_network(run, block, trusted)
    folder = to or RunDir(network.source.path).exported / f"{form}-{_place(network.source.steps)}{network.block}"
    made, difference = export_folder(network, form, folder)
    return f"{made} (features as Onward's own to {difference:.1e}; README.md there says how to load it)"


def _place(steps: int) -> str:
    return f"step-{steps}-block-" if steps else "block-"


def _tensors(source: Path, run: Path) -> dict[str, Tensor]:
    """The tensors in a file of the run, if it is not damaged and fits into memory."""
    size, have = source.lstat().st_size, available_bytes()
    if have is not None and size > have:
        raise UserError(f"'{source}' has {size / 1e9:.1f} GB, and {have / 1e9:.1f} GB of memory are available")
    try:
        with open_tensors(source, run) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{source}' is damaged ({reason}). Train the run to its end again") from None
    if not tensors:
        raise UserError(f"'{source}' is damaged (it holds no tensor). Train the run to its end again")
    return tensors


def _metadata(config: Config) -> dict[str, str]:
    """How an image must be prepared for the network, all as text."""
    data = config.data
    return {
        "model": json.dumps(without_secrets(config)["model"]),
        "image_size": str(data.image_size),
        "resize": f"short side to {round(data.image_size * MARGIN)}, {data.eval_interpolation}, then the centre is cut "
        "out; images of the size itself stay as they are",
        "pixels": "RGB, 0 to 1, less mean, over std",
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "onward": importlib.metadata.version("onward"),
    }
