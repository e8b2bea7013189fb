"""Runs whose parts are counted, one of each kind of stage."""

from __future__ import annotations

from typing import Any

ADAM = {"kind": "adamw", "lr": 0.001, "warmup_epochs": 1}
VIT = {
    "backbone": "vit_b_16",
    "patch_size": 8,
    "hidden_dim": 24,
    "num_layers": 4,
    "num_heads": 2,
    "mlp_dim": 48,
    "cuts": ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_2"],
}
OWN = {"backbone": "tests.pipeline.backbones.networks_for_cutting:Functional", "output": "second", "cuts": ["first"]}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"noise": {"kind": "all"}},
    "bf16": {"precision": {"dtype": "bf16"}},
    "channels last": {"precision": {"channels_last": True}},
    "fp16": {"precision": {"dtype": "fp16"}},
    "transformer": {"model": VIT, "optimizer": ADAM},
    "target network": {"objective": {"kind": "byol"}},
    "labels": {"objective": {"kind": "supervised"}},
    "a patch, and gradients that are clipped": {
        "objective": {"kind": "simclr", "negatives": "single_patch"},
        "optimizer": {"clip_norm": 1.0},
    },
    "views of several sizes": {
        "data": {"views": [{"count": 2}, {"count": 2, "size": 8}]},
        "objective": {"kind": "lejepa"},
    },
    "slices": {"head": {"chunk": 3}},
    "a network of the user's own": {"model": OWN},
    "stages that differ": {
        "stages": {
            1: {"head": {"projector": [32, 8]}},
            2: {"precision": {"dtype": "bf16"}, "optimizer": ADAM},
            3: {"objective": {"kind": "byol"}},
            4: {"frozen": True},
        }
    },
    "one loss": {"mode": "end_to_end"},
}
