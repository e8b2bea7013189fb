"""Bad input in what the method offers: each combination that makes no sense says so and names the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launch.prepare.preflight

VIT = "model={backbone: vit_b_16, patch_size: 4, hidden_dim: 32, num_layers: 2, num_heads: 4, mlp_dim: 64}"
ALEXNET = "model={backbone: 'torchvision.models:alexnet', output: features"
FX = "model={backbone: 'torchvision.models:mobilenet_v3_small', output: features"

CASES: list[tuple[str, str, tuple[str, ...]]] = [
    # objectives
    (
        "kind",
        r"^objective\.kind: unknown value 'simclrr'\. Did you mean 'simclr'\? Allowed: barlow_",
        ("objective.kind=simclrr",),
    ),
    (
        "key of another kind",
        r"^objective\.lambd: unknown key.*It is a key of barlow_twins, lejepa, and this is simclr\. Allowed: kind, ",
        ("objective.kind=simclr", "objective.lambd=0.1"),
    ),
    (
        "temperature",
        r"^objective\.temperature: got 0\.?0?\. .*greater than 0",
        ("objective.kind=simclr", "objective.temperature=0"),
    ),
    (
        "negatives",
        r"^objective\.negatives: .*'single'\. Did you mean 'single_patch'",
        ("objective.kind=simclr", "objective.negatives=single"),
    ),
    (
        "simclr alone",
        r"^data\.batch_size: got 1, and simclr takes the other images .*Give 2 or more",
        ("objective.kind=simclr", "data.batch_size=1"),
    ),
    (
        "no momentum",
        r"^objective\.momentum: got null, .*Give objective\.momentum=0\.996, or objective\.kind=simclr",
        ("objective.kind=byol", "objective.momentum=null"),
    ),
    (
        "momentum of 0",
        r"^objective\.momentum: got 0, .*slow copy.*0\.996",
        ("objective.kind=byol", "objective.momentum=0"),
    ),
    ("momentum of 1", r"^objective\.momentum: got 1, .*0\.996", ("objective.kind=byol", "objective.momentum=1.0")),
    (
        "predictor",
        r"^objective\.predictor: ends with 8 outputs, .*embedding of 16\. Give \[\.\.\., 16\], or a head\.proj",
        ("objective.kind=byol", "objective.predictor=[8]"),
    ),
    (
        "predictor of a stage",
        r"^stages\.2\.objective\.predictor: ends with 8 .*16",
        ("stages.2.objective={kind: byol, predictor: [8]}",),
    ),
    (
        "views that predict",
        r"^stages\.2\.objective\.global_views: got 3, and there are 2 views\. Give at most 2, or leave it out",
        ("stages.2.objective={kind: lejepa, global_views: 3}",),
    ),
    (
        "classes",
        r"^head\.projector: gives 16 outputs at stage 1, and image_folder has 2 classes.*Give \[2\]",
        ("objective.kind=supervised",),
    ),
    (
        "classes of a stage",
        r"^stages\.3\.head\.projector: gives 9 .*2 classes",
        ("stages.3={objective: {kind: supervised}, head: {projector: [9]}}",),
    ),
    (
        "objective in a stage",
        r"^stages\.2\.objective\.kind: unknown value 'vic'.*'vicreg'",
        ("stages.2.objective.kind=vic",),
    ),
    # heads
    ("head", r"^head\.kind: unknown value 'gap'\. .*Allowed: expansion, gsp, lsp", ("head.kind=gap",)),
    ("filter of gsp", r"^head\.filter: .*key of expansion, and this is gsp", ("head.kind=gsp", "head.filter=1")),
    (
        "grid",
        r"^head\.grid: a grid of 4x4 does not fit the 2x2 output of stage 4\. Give at most 2",
        ("head.kind=lsp", "head.grid=4"),
    ),
    ("projector", r"^head\.projector: got 'no_'\. It should be a list", ("head.projector=no_",)),
    # noise
    (
        "placement",
        r"^noise\.placement: unknown value 'middle'\. Allowed: output or input|^noise\.placement: .*output, input",
        ("noise.placement=middle",),
    ),
    ("noise schedule", r"^noise\.schedule: unknown value 'linea'\. Did you mean 'linear'", ("noise.schedule=linea",)),
    (
        "noise over one pixel",
        r"^noise\.kind: 'hw' .*output of stage 4 is 1x1\. Give stages\.4\.noise\.kind=all",
        ("noise.kind=hw", "data.image_size=8"),
    ),
    # modes
    ("mode", r"^mode: unknown value 'sequentially'\. Did you mean 'sequential'", ("mode=sequentially",)),
    (
        "sequential with one block",
        r"^mode: 'sequential' .*one block\. Give model\.cuts, or mode=simultaneous",
        ("mode=sequential", "model.cuts=[]"),
    ),
    (
        "a loss that is never used",
        r"^stages\.2\.objective: in mode end_to_end only the last block, stage 4",
        ("mode=end_to_end", "stages.2.objective.kind=vicreg"),
    ),
    # memory
    (
        "recompute",
        r"^memory\.recompute: unknown value 'always'\..*Allowed: none, units, views, auto",
        ("memory.recompute=always",),
    ),
    ("slices without an expansion", r"^head\.chunk: unknown key", ("head.kind=gsp", "head.chunk=8")),
    (
        "views with one backward pass",
        r"^stages\.2\.memory\.recompute: got 'views', and engine\.kind=deepspeed averages.*Give units or none",
        ("stages.2.memory.recompute=views", "engine.kind=deepspeed", "optimizer.kind=adamw"),
    ),
    (
        "views for a part of one gradient",
        r"^stages\.3\.memory\.recompute: in mode end_to_end.*all or none\. Give memory\.recompute=views for all",
        ("mode=end_to_end", "stages.3.memory.recompute=views"),
    ),
    # optimizers
    (
        "optimizer",
        r"^optimizer\.kind: unknown value 'adam'\. Did you mean 'adamw'\? Allowed: lars, lars_lr",
        ("optimizer.kind=adam",),
    ),
    ("lars weight", r"^optimizer\.lars_weight: got 2(\.0)?\. .*less than or equal to 1", ("optimizer.lars_weight=2",)),
    (
        "nesterov without momentum",
        r"^optimizer\.\w+: .*[Nn]esterov.*momentum",
        ("optimizer.kind=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"),
    ),
    ("steps without milestones", r"^optimizer\.\w+: .*milestones", ("optimizer.schedule=step",)),
    (
        "bias learning rate for nobody",
        r"^optimizer\.bias_lr: got 0\.1, .*exclude=none.*dimension or type",
        ("optimizer.exclude=none", "optimizer.bias_lr=0.1"),
    ),
    ("clipping to 0", r"^optimizer\.clip_norm: got 0\.?0?\. .*greater than 0", ("optimizer.clip_norm=0",)),
    (
        "warm-up of a stage",
        r"^stages\.1\.optimizer\.warmup_epochs: a warm-up of 5",
        ("stages.1.optimizer.warmup_epochs=5",),
    ),
    ("skipped steps", r"^train\.max_skipped: got 0\. .*greater than 0", ("train.max_skipped=0",)),
    # precision
    (
        "dtype",
        r"^precision\.dtype: unknown value 'float16'\. .*Allowed: fp32, bf16, fp16",
        ("precision.dtype=float16",),
    ),
    (
        "fp16 on a CPU",
        r"^precision\.dtype: got 'fp16', and a CPU .*Give bf16 or fp32, or put the stage on a GPU",
        ("precision.dtype=fp16",),
    ),
    (
        "fp16 where there is no GPU",
        r"^precision\.dtype: got 'fp16', and a CPU",
        ("precision.dtype=fp16", "device=auto"),
    ),
    ("fp16 of a stage", r"^stages\.2\.precision\.dtype: got 'fp16'", ("stages.2.precision.dtype=fp16",)),
    (
        "shared scaler",
        r"^precision\.shared_scaler: only fp16 .*is fp32\. Give precision\.dtype=fp16",
        ("precision.shared_scaler=reference",),
    ),
    (
        "tf32 of a stage",
        r"^stages\.1\.precision\.tf32: .*whole run.*Give precision\.tf32",
        ("stages.1.precision.tf32=true",),
    ),
    # backbones
    (
        "backbone",
        r"^model\.backbone: unknown value 'vit_b16'\. Did you mean 'vit_b_16'\?.*PACKAGE\.MODULE:FUNCTION",
        ("model.backbone=vit_b16",),
    ),
    (
        "cut of a transformer",
        r"^model\.cuts: 'encoder\.layers\.encoder_layer_7' is not a module of vit_b_16.*encoder_layer_0 to",
        (VIT.replace("}", ", cuts: [encoder.layers.encoder_layer_7]}"),),
    ),
    (
        "patches",
        r"^data\.image_size: 30 pixels are not a whole number of patches of 4 pixels\. Give 28 or 32",
        (VIT, "data.image_size=30"),
    ),
    (
        "layers without end",
        r"^model\.num_layers: got 1000000000\. .*less than or equal to 1000",
        (VIT.replace("num_layers: 2", "num_layers: 1000000000"),),
    ),
    ("heads of a transformer", r"^model\.num_heads: .*32", (VIT.replace("num_heads: 4", "num_heads: 5"),)),
    (
        "height of tokens",
        r"^noise\.kind: 'c_legacy' is over height, .*17 tokens\. Give all, hw or c",
        (VIT, "noise.kind=c_legacy"),
    ),
    ("grid of tokens", r"^head\.kind: 'lsp' pools over cells .*tokens\. Give expansion or gsp", (VIT, "head.kind=lsp")),
    ("filter of tokens", r"^head\.filter: a 3x3 convolution needs a map, .*tokens\. Give 1", (VIT, "head.filter=3")),
    (
        "no output",
        r"^model\.output: is missing\. Give model\.output=",
        ("model={backbone: 'torchvision.models:alexnet'}",),
    ),
    ("no such package", r"^model\.backbone: .*nowhere", ("model={backbone: 'nowhere.nets:build', output: x}",)),
    (
        "no such function",
        r"^model\.backbone: .*torchvision\.models.*alexnot.*",
        ("model={backbone: 'torchvision.models:alexnot', output: x}",),
    ),
    ("no such option", r"^model\.options: .*depht", (f"{ALEXNET}, options: {{depht: 3}}}}",)),
    ("no such module", r"^model\.cuts: .*'features\.99'", (f"{ALEXNET}, cuts: [features.99]}}",)),
    ("inside a branch", r"^model\.cuts: .*'features\.3\.block\.1'", (f"{FX}, cuts: [features.3.block.1]}}",)),
    # augmentation
    ("three views", r"^data\.augment\.flip_p: got \[0, 0, 0\]\. .*list of 2", ("data.augment.flip_p=[0,0,0]",)),
    ("probability", r"^data\.augment\.crop_p\.\d: got 1\.5\. .*less than or equal to 1", ("data.augment.crop_p=1.5",)),
    (
        "patch reversed",
        r"patch_scale: got \[0\.2, 0\.1\].*Give \[0\.1, 0\.2\]",
        ("data.augment.patch_scale=[0.2,0.1]",),
    ),
    (
        "pixel noise",
        r"^data\.augment\.noise_std\.0: got -1(\.0)?\. .*greater than or equal to 0",
        ("data.augment.noise_std=[-1,0]",),
    ),
]


@pytest.mark.parametrize(("name", "expected", "overrides"), CASES, ids=[case[0] for case in CASES])
def test_bad_method(
    name: str,
    expected: str,
    overrides: tuple[str, ...],
    folder: Path,
    onward: Callable[..., Any],
    assert_refused: Callable[[Any, str], None],
    fake_training: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch.prepare.preflight, "count_gpus", lambda: 0)
    assert_refused(onward("train", "config.yaml", *overrides), expected)
    assert fake_training == [], "training was started"


def test_an_override_of_a_kind_takes_the_file_s_keys_of_the_old_kind_with_it(
    folder: Path, onward: Callable[..., Any]
) -> None:
    """`objective.kind=vicreg` works on a file that sets `objective.lambd`: a command line can unset nothing."""
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text + "\nobjective: {lambd: 0.02, scale: 0.024}\n")
    outcome = onward("check", "config.yaml", "objective.kind=vicreg")
    assert (outcome.code, outcome.err) == (0, "")
    assert "kind: vicreg" in outcome.out
    assert "lambd" not in outcome.out
