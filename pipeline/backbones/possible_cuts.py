"""All points at which a network of the user's own, or of timm, can be cut, for whoever looks for the best cuts."""

from __future__ import annotations

from pipeline.backbones.module import measure
from pipeline.backbones.network import import_network
from pipeline.backbones.timm_points import DEPTHS, laid_out_alike, possible_points, run_once
from pipeline.config.model import ModuleConfig
from pipeline.errors import ConfigError


def with_every_cut(model: ModuleConfig, image_size: int) -> ModuleConfig:
    """`model` cut at its own cuts, and at all other points behind which one tensor passes, and nothing else.

    A point lies behind a module that is at most `DEPTHS` deep and is called once, and there are weights before, between
    and behind any two. Where the network cannot be traced so deep, it is traced less deep.

    Args:
        model: with its output, and cuts that are possible.
        image_size: side in pixels.

    Raises:
        ConfigError: the network cannot be built, or cut as `model` says.
    """
    measure(model, image_size)
    try:
        shapes = run_once(import_network(model, seed=0), model, image_size).shapes
    except ConfigError:
        raise
    except Exception:  # as a whole it fails where `model.output` is not its end: what is known of it are its cuts
        return model
    for depth in sorted(DEPTHS, reverse=True):
        if (finest := _cut(model, image_size, shapes, depth)) is not None:
            return finest
    return model


def _cut(model: ModuleConfig, image_size: int, shapes: dict[str, tuple[int, ...]], depth: int) -> ModuleConfig | None:
    """With all points at most so deep; None where that cannot be."""
    output = shapes.get(model.output)
    if output is None:
        return None
    names = [name for name in shapes if name.count(".") < depth and laid_out_alike(shapes[name], output)]
    names = [name for name in names if name != model.output and name not in model.cuts]
    try:
        points = possible_points(import_network(model, seed=0), model, [*model.cuts, *names], model.output)
        wanted = {*points, *model.cuts}
        finest = model.model_copy(update={"cuts": tuple(name for name in shapes if name in wanted)})
        measure(finest, image_size)
    except ConfigError:
        return None
    return finest
