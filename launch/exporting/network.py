"""The blocks of a run that are to be exported, as one network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from launch.prepare.run_dir import read_config
from pipeline.backbones import build_block
from pipeline.config import Config
from pipeline.config.model import ModuleConfig, ResNetConfig
from pipeline.errors import UserError
from pipeline.validation.loading import LoadOptions, load_config
from workers.run.files import RunDir
from workers.run.tensor_files import open_tensors
from workers.weights.sources import Source
from workers.weights.tensors import TRUNK


@dataclass(frozen=True)
class ExportedNetwork:
    """The first blocks of a trained network.

    Args:
        source: the run, or the snapshot.
        config: of the run.
        block: the last of them, counted from 1.
        blocks: all blocks of the run, in evaluation mode, in float32 on the CPU.
    """

    source: Source
    config: Config
    block: int
    blocks: tuple[nn.Module, ...]

    @property
    def module(self) -> nn.Module:
        """Normalised images `[B, 3, S, S]` to maps `[B, C, H, W]` or tokens `[B, N, D]`."""
        return nn.Sequential(*self.blocks[: self.block]).eval()

    @property
    def units(self) -> list[str]:
        """The units of the exported blocks, in order."""
        return [unit for units in self.config.model.blocks()[: self.block] for unit in units]

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole backbone."""
        return self.block == len(self.blocks)

    def tensors(self, whole: bool = False) -> dict[str, Tensor]:
        """Weights and buffers under torchvision's names, or those of the user's network; `whole`: of all blocks."""
        blocks = self.blocks if whole else self.blocks[: self.block]
        return {name: tensor for block in blocks for name, tensor in block.state_dict().items()}

    def images(self, count: int = 2) -> Tensor:
        """Normalised noise in the shape of images, `[count, 3, S, S]`, always the same."""
        size = self.config.data.image_size
        return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def read_network(name: str, block: int | None, trusted: bool) -> ExportedNetwork:
    """The blocks 1 to `block` (all if not given) of the run `RUN` or the snapshot `RUN@STEPS`.

    Args:
        name: of it.
        block: the last one.
        trusted: whether what the configuration names may be imported although it is another user's file.

    Raises:
        UserError: there is no such run, snapshot or block, or it cannot be read.
    """
    source = Source.of(name)
    if source.kind not in ("run", "snapshot"):
        raise UserError(f"'{name}' is no run. 'onward convert' shows what is in a file")
    config = read_config(source.path)
    if isinstance(config.model, ModuleConfig):  # the only one whose code is another's
        config = load_config(RunDir(source.path).config, (), LoadOptions(trusted=trusted, run=source.path))
    count = config.num_stages
    if block is not None and not 1 <= block <= count:
        raise UserError(f"--block: there is no block {block}. '{name}' has blocks 1 to {count}")
    files = source.stage_files()
    if missing := [index for index in range(1, count + 1) if index not in files]:
        raise UserError(f"'{name}' has no weights of block {missing[0]}: it had not begun to learn")
    blocks = tuple(_loaded(config, index, files[index], source.path) for index in range(1, count + 1))
    return ExportedNetwork(source, config, block or count, blocks)


def _loaded(config: Config, index: int, path: Path, run: Path) -> nn.Module:
    block = build_block(config, index).eval().requires_grad_(False)
    try:
        with open_tensors(path, run) as file:
            names = [name for name in file.keys() if name.startswith(TRUNK)]  # noqa: SIM118  # it is no dict
            block.load_state_dict({name.removeprefix(TRUNK): file.get_tensor(name) for name in names})
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"'{path}' is not block {index} of the run ({' '.join(str(error).split())[:200]})") from None
    return block


def no_such_network(network: ExportedNetwork, library: str, why: str) -> UserError:
    """The error for a network that a library has not."""
    model = network.config.model
    return UserError(
        f"{library} has no such network: {model.backbone} {why}. --to torch-export takes any, and "
        "'onward export RUN FILE.safetensors' its tensors alone"
    )


def check_resnet(network: ExportedNetwork, model: ResNetConfig, library: str, widths: bool = False) -> None:
    """Raises `UserError` where a library's ResNet is another: its stem, and its width unless it takes any."""
    if model.stem != "imagenet":
        raise no_such_network(network, library, f"with model.stem={model.stem}")
    if model.width != 64 and not widths:
        raise no_such_network(network, library, f"with model.width={model.width}")


def layer_of(network: ExportedNetwork, library: str) -> int:
    """The ResNet's layer, 1 to 4, that the exported blocks end with; raises `UserError` if they end inside of one."""
    model, last = network.config.model, network.units[-1]
    layer = last.split(".")[0]
    following = model.units()[len(network.units) :]
    if last == "stem" or (following and following[0].startswith(f"{layer}.")):
        raise no_such_network(network, library, f"up to {last}: its features are those of whole layers")
    return int(layer.removeprefix("layer"))
