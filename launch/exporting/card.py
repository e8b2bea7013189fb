"""The model card: what the network is, how its images are prepared, what the run measured, how it is loaded."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from launch.exporting.network import ExportedNetwork
from pipeline.data.augment.evaluation_view import MARGIN
from pipeline.shapes import block_output
from workers.run.files import RunDir, read_report

PACKAGES = {
    "torchvision": ("torch", "torchvision", "safetensors"),
    "timm": ("torch", "timm"),
    "hf": ("torch", "transformers", "timm"),
    "torch-export": ("torch",),
}


def model_card(network: ExportedNetwork, name: str, lines: str, difference: float) -> str:
    """The card as Markdown.

    Args:
        network: what was exported.
        name: of the format.
        lines: Python that loads it, from `folder` and `images` to `features`.
        difference: of its features from Onward's own, of the largest feature.
    """
    config, size = network.config, network.config.data.image_size
    shape = ", ".join(str(number) for number in block_output(config, network.block))
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES[name])
    parts = [
        "---",
        "library_name: " + {"hf": "transformers", "torch-export": "pytorch"}.get(name, name),
        "tags: [image-feature-extraction, self-supervised, blockwise]",
        "---",
        f"# {config.model.backbone}, blocks 1 to {network.block} of {config.num_stages}",
        "",
        f"Trained by Onward {importlib.metadata.version('onward')}, without a classifier: {_training(network)}.",
        "",
        "## Input",
        "",
        f"RGB images, `[B, 3, {size}, {size}]` float32: values from 0 to 1, less the mean `{list(config.data.mean)}`, "
        f"over the standard deviation `{list(config.data.std)}` of each channel. For evaluation the short side is "
        f"resized to {round(size * MARGIN)} pixels ({config.data.eval_interpolation}) and the centre is cut out; "
        f"images of {size} x {size} stay as they are.",
        "",
        "## Output",
        "",
        f"`[B, {shape}]`: {'tokens, the class token first' if shape.count(',') == 1 else 'a map'}.",
        "",
        "```python",
        lines.rstrip("\n"),
        "```",
        "",
        f"Written and loaded again with {versions}: on two images of noise the features differ from Onward's own by "
        f"{difference:.1e} of the largest.",
        "",
        "## What the run measured",
        "",
        *_numbers(network),
    ]
    return "\n".join(parts) + "\n"


def _training(network: ExportedNetwork) -> str:
    config = network.config
    stage = config.stage(network.block)
    how = f"mode {config.mode}, objective {stage.objective.kind}, {config.train.epochs} epochs of {config.data.name}"
    steps = f", after {network.source.steps} steps" if network.source.steps else ""
    frozen = [str(index) for index in range(1, network.block + 1) if config.is_frozen(index)]
    kept = f", with blocks {', '.join(frozen)} frozen" if frozen else ""
    begun = stage.init_from.sha256
    first = f", begun with weights of SHA-256 {begun}" if begun else ""
    return f"{how}, batches of {config.data.batch_size}, seed {config.seed}{steps}{kept}{first}"


def _numbers(network: ExportedNetwork) -> list[str]:
    """The accuracies of the blocks, where the run has measured them."""
    report: dict[str, Any] = read_report(RunDir(network.source.path)) or {}
    trained, untrained = report.get("trained"), report.get("untrained")
    if network.source.kind != "run" or not isinstance(trained, list) or not isinstance(untrained, list):
        return ["Nothing of these weights: the run has no linear probes."]
    rows = ["| block | feature | linear probe before, % | after, % |", "|---|---|---|---|"]
    for before, after in zip(untrained, trained, strict=False):
        for feature in ("trunk", "expansion"):
            values = [row.get(feature) for row in (before, after)]
            if all(isinstance(value, int | float) for value in values):
                shown = " | ".join(f"{100 * float(value):.1f}" for value in values)
                rows.append(f"| {after.get('block')} | {feature} | {shown} |")
    return [*rows, "", f"On the test images of {network.config.data.name}; before: as the run began."]
