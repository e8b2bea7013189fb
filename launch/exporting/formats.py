"""What every format has, and the writing of a folder, whose features are compared before it is done."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor

from launch.exporting.card import model_card
from launch.exporting.network import ExportedNetwork
from pipeline.errors import UserError
from workers.run.files import write_text

TOLERANCE = 1e-5
"""Largest difference of a feature from Onward's own, of the largest feature: other operations round otherwise."""
MODULES = {
    "torchvision": "torchvision_format",
    "timm": "timm_format",
    "hf": "hf_format",
    "torch-export": "torch_export_format",
}


@dataclass(frozen=True)
class Format:
    """How one library is served.

    Args:
        packages: that loading needs, and the extra of ours that installs them, if any.
        write: writes the files into a folder that is there, and returns the Python lines that load them: from `folder`
            and `images`, normalised `[B, 3, S, S]`, to `features`.
        load: from a folder and images to the features, as those lines do.
    """

    packages: tuple[tuple[str, str], ...]
    write: Callable[[ExportedNetwork, Path], str]
    load: Callable[[ExportedNetwork, Path, Tensor], Tensor]


def format_of(name: str) -> Format:
    """The format `name`; raises `UserError` if there is none, or a package that it needs is missing."""
    if name not in MODULES:
        raise UserError(f"--to: unknown format '{name}'. Allowed: {', '.join(MODULES)}")
    found: Format = importlib.import_module(f"launch.exporting.{MODULES[name]}").FORMAT
    for package, extra in found.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--to {name} needs the package {package}, which cannot be imported ({error}). Install it: "
                f"pip install 'onward[{extra}]'"
            ) from None
    return found


def export_folder(network: ExportedNetwork, name: str, to: Path) -> tuple[Path, float]:
    """Write the folder `to`, load it with its library, and compare the features with Onward's own.

    Returns:
        The folder, and the largest difference of a feature, of the largest feature.

    Raises:
        UserError: the library has no such network, the folder cannot be written, or the features are others.
    """
    chosen = format_of(name)
    if to.exists():
        raise UserError(f"'{to}' already exists. Give another folder, or delete it")
    try:
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix=f".{to.name}.", dir=to.absolute().parent))
    except OSError as error:
        raise UserError(f"'{to}' cannot be written ({error.strerror}). Give another folder") from None
    try:
        lines = chosen.write(network, made)
        difference = _difference(network, chosen, made)
        write_text(made / "README.md", model_card(network, name, lines, difference))
        made.chmod(0o755)
        made.rename(to)
    except OSError as error:
        raise UserError(f"'{to}' cannot be written ({error.strerror or error}). Give another folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return to, difference


@torch.no_grad()
def _difference(network: ExportedNetwork, chosen: Format, folder: Path) -> float:
    images = network.images()
    own = network.module(images)
    theirs = chosen.load(network, folder, images)
    if theirs.shape != own.shape:
        raise UserError(f"what was written gives features {list(theirs.shape)}, and the run's are {list(own.shape)}")
    difference: float = ((theirs - own).abs().max() / own.abs().max().clamp_min(1e-30)).item()
    if not difference <= TOLERANCE:
        raise UserError(f"what was written computes other features: they differ by {difference:.1e} of the largest")
    return difference
