"""A program of torch.export, for which no library has to know the network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from launch.exporting.formats import Format
from launch.exporting.network import ExportedNetwork
from pipeline.errors import UserError, first_line

FILE = "model.pt2"


def _write(network: ExportedNetwork, folder: Path) -> str:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad():
            program = torch.export.export(network.module, (network.images(),), dynamic_shapes=shapes)
        torch.export.save(program, folder / FILE)
    except Exception as error:  # of a network of the user's own
        raise UserError(f"torch.export cannot take block {network.block} ({first_line(error)[:200]})") from None
    return f'import torch\n\nnetwork = torch.export.load(f"{{folder}}/{FILE}").module()\nfeatures = network(images)\n'


def _load(network: ExportedNetwork, folder: Path, images: Tensor) -> Tensor:
    features: Tensor = torch.export.load(folder / FILE).module()(images)
    return features


FORMAT = Format((), _write, _load)
