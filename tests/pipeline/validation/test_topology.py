"""How many processes share a run, and what may come back: whatever cannot work is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from tests.pipeline.small import small_config

TWO = {"model": {"cuts": ["layer2"]}}
DEEPSPEED = {"kind": "deepspeed"}
ADAMW = {"kind": "adamw", "warmup_epochs": 1}
FLIP = {"kind": "flip_gradient", "stage": 2, "step": 1}
SNAPSHOTS = {"snapshots": {"every": 2}}


@pytest.mark.parametrize(
    ("sections", "key", "why", "remedy"),
    [
        ({"processes": 1, "runtime": "serial"}, "processes", "trained in one process", "runtime=pipelined"),
        ({"processes": 3}, "processes", "got 3, and there are 2 stages to share", "Give 1 to 2"),
        ({"replicas": 2, "runtime": "serial"}, "replicas", "trained in one process", "runtime=pipelined, or 1"),
        ({"replicas": 2, "processes": 1}, "replicas", "processes=1 puts several stages into one", "Give one of them"),
        ({"replicas": 2, "data": {"drop_last": False}}, "replicas", "cannot be shared evenly", "drop_last=true"),
        (
            {"stages": {"2": {"replicas": 3}}, "data": {"batch_size": 8}},
            "stages.2.replicas",
            "3 replicas cannot share a batch of 8 evenly",
            "2 or 4 replicas, or data.batch_size=6 or 9",
        ),
        (
            {"replicas": 4, "data": {"batch_size": 4}},
            "replicas",
            "two images or more each",
            "2 replicas, or data.batch_size=8",
        ),
        ({"replicas": 2, "precision": {"compile": True}}, "replicas", "compiled network", "compile=false"),
        (
            {"restart": "job", "runtime": "serial", **SNAPSHOTS},
            "restart",
            "no other could restart it",
            "runtime=pipelined",
        ),
        ({"restart": "job"}, "restart", "nothing to come back to", "Give snapshots.every"),
        (
            {"restart": "stage", "link": {"kind": "rpc"}, **SNAPSHOTS},
            "restart",
            "cannot take a process back",
            "queue or p2p, or restart=job",
        ),
        (
            {"faults": [FLIP], "engine": DEEPSPEED, "optimizer": ADAMW},
            "faults.0.kind",
            "in its own form (engine.zero_stage=1)",
            "flip_message or flip_optimizer, or engine.kind=torch",
        ),
        (
            {
                "faults": [FLIP],
                "engine": {**DEEPSPEED, "zero_stage": 0},
                "optimizer": ADAMW,
                "precision": {"dtype": "bf16"},
            },
            "faults.0.kind",
            "in its own form (precision.dtype=bf16)",
            "flip_message or flip_optimizer, or engine.kind=torch",
        ),
        (
            {"faults": [{"stage": 3, "step": 1, "kind": "raise"}]},
            "faults.0.stage",
            "there is no stage 3",
            "Stages are 1 to 2",
        ),
        (
            {
                "faults": [
                    {"stage": 1, "step": 1, "kind": "raise"},
                    {"stage": 2, "step": 1, "kind": "raise", "replica": 2},
                ]
            },
            "faults.1.replica",
            "stage 2 has no replica 2",
            "Replicas are 1 to 1",
        ),
        (
            {"engine": DEEPSPEED, "runtime": "serial", "optimizer": ADAMW},
            "engine.kind",
            "wants a process for each stage",
            "engine.kind=torch",
        ),
        (
            {"stages": {"1": {"engine": DEEPSPEED}}, "processes": 1, "optimizer": ADAMW},
            "stages.1.engine.kind",
            "wants a process for each stage",
            "no processes",
        ),
        (
            {"engine": {**DEEPSPEED, "zero_stage": 1}, "optimizer": {"kind": "lars", "warmup_epochs": 1}},
            "engine.zero_stage",
            "ZeRO flattens parameters",
            "optimizer.kind=adamw",
        ),
        (
            {
                "engine": {**DEEPSPEED, "zero_stage": 1, "offload_optimizer": True},
                "optimizer": {"kind": "sgd", "warmup_epochs": 1},
            },
            "engine.offload_optimizer",
            "with Adam only, and optimizer.kind is sgd",
            "optimizer.kind=adamw",
        ),
        (
            {"engine": {**DEEPSPEED, "zero_stage": 0, "offload_optimizer": True}, "optimizer": ADAMW},
            "engine.offload_optimizer",
            "needs ZeRO",
            "zero_stage 1 or 2",
        ),
        (
            {"engine": DEEPSPEED, "optimizer": ADAMW, "precision": {"dtype": "fp16"}},
            "engine.kind",
            "would hide skipped steps",
            "bf16 or fp32",
        ),
        (
            {
                "engine": DEEPSPEED,
                "optimizer": ADAMW,
                "precision": {"dtype": "bf16"},
                "objective": {"kind": "byol", "predictor": [16, 16]},
            },
            "engine.kind",
            "too coarse for the slow target",
            "precision.dtype=fp32",
        ),
        ({"mode": "end_to_end", "link": {"codec": "int8"}}, "link.codec", "nothing travels over a link", "codec=none"),
    ],
)
def test_what_cannot_work_is_refused_at_its_key_with_a_way_out(
    sections: dict[str, Any], key: str, why: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        small_config(**{**TWO, **sections})
    text = str(refused.value)
    assert text.startswith(f"{key}: ")
    assert why in text
    assert remedy in text


@pytest.mark.parametrize(
    "sections",
    [
        {"processes": 1},
        {"processes": 2},
        {"replicas": 2, "data": {"batch_size": 8}},
        {"stages": {"2": {"replicas": 4}}, "data": {"batch_size": 8}},
        {"restart": "job", "link": {"kind": "rpc"}, **SNAPSHOTS},
        {"restart": "stage", "link": {"kind": "p2p"}, **SNAPSHOTS},
        {"faults": [{"stage": 2, "step": 1, "kind": "raise", "replica": 2}], "stages": {"2": {"replicas": 2}}},
        {"engine": {**DEEPSPEED, "zero_stage": 1}, "optimizer": ADAMW},
        {"engine": {**DEEPSPEED, "zero_stage": 0}, "optimizer": {"kind": "lars", "warmup_epochs": 1}},
        {"engine": {**DEEPSPEED, "zero_stage": 1, "offload_optimizer": True}, "optimizer": ADAMW},
        {"engine": DEEPSPEED, "optimizer": ADAMW, "precision": {"dtype": "bf16"}},
        {"mode": "end_to_end", "link": {"codec": "none"}},
    ],
    ids=lambda sections: ",".join(sections),
)
def test_what_can_work_is_taken(sections: dict[str, Any]) -> None:
    assert small_config(**{**TWO, **sections}).num_stages == 2
