"""`onward export`: the trained backbone as one file that needs neither the run nor Onward."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from launch.run_dir import check_own
from pipeline.data.evaluation_view import MARGIN
from pipeline.errors import UserError
from workers.run_files import RunDir
from workers.weights import save_tensors

SUFFIX = ".safetensors"


def export_backbone(run: Path, to: Path) -> None:
    """Write the backbone of the run in `run` to the file `to`, with metadata.

    The configuration is read as it stands, for a module that only training needed may be gone.

    Raises:
        UserError: no such run, one that has not been trained to its end, or a file that cannot be written.
    """
    check_own(run)
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
    try:
        save_tensors(to, load_file(source), _metadata(RunDir(run)))
    except SafetensorError as error:
        raise UserError(f"'{source}' is damaged ({error}). Train the run to its end again") from None
    except OSError as error:
        raise UserError(f"'{to}' cannot be written ({error.strerror}). Give another file") from None


def _metadata(run: RunDir) -> dict[str, str]:
    """How an image becomes what the network was trained and measured on, all as text."""
    config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    data: dict[str, Any] = config["data"]
    size = int(data["image_size"])
    return {
        "model": json.dumps(config["model"]),
        "image_size": str(size),
        "resize": f"short side to {round(size * MARGIN)}, {data['eval_interpolation']}, then the centre is cut out; "
        "images of the size itself stay as they are",
        "pixels": "RGB, 0 to 1, less mean, over std",
        "mean": json.dumps(data["mean"]),
        "std": json.dumps(data["std"]),
        "onward": importlib.metadata.version("onward"),
    }
