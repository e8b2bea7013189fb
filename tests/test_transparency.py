"""Exactness: however the network is run, the trained weights are the same to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.marks import slow
from tests.runs import LIMIT, bits, digests, onward, report, start, train

pytestmark = pytest.mark.processes
DIGESTS = "digests.every=2"


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    result = train(folder, "runtime=serial", DIGESTS)
    assert result.returncode == 0, result.stderr
    return folder


LINKS = [("queue", 1), slow("queue", 5), slow("rpc", 1), ("rpc", 3), slow("p2p", 1), ("p2p", 4)]


@pytest.mark.parametrize(("kind", "depth"), LINKS)
def test_the_pipeline_equals_the_serial_run(serial: Path, tmp_path: Path, kind: str, depth: int) -> None:
    result = train(tmp_path, f"link.kind={kind}", f"link.depth={depth}", DIGESTS)
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == bits(serial)
    assert report(tmp_path)["link"] == kind
    logs = "".join(path.read_text() for path in (tmp_path / "run" / "logs").iterdir())
    assert "did not stop" not in logs, "an agent that a call keeps waits for it, half a minute at the end of a run"


@pytest.mark.slow
def test_the_transport_of_rpc_changes_no_bit(serial: Path, tmp_path: Path) -> None:
    result = train(tmp_path, "link.kind=rpc", "link.rpc_transports=[shm, uv]", DIGESTS)
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == bits(serial)


@pytest.mark.parametrize("processes", [slow(1), 3])
def test_stages_may_share_processes(serial: Path, tmp_path: Path, processes: int) -> None:
    result = train(tmp_path, f"processes={processes}", DIGESTS)
    assert result.returncode == 0, result.stderr
    assert f"in {'3 processes' if processes == 3 else 'a process'} and a coordinator" in result.stdout
    assert bits(tmp_path) == bits(serial)


def test_what_stages_compute_again_changes_no_bit(serial: Path, tmp_path: Path) -> None:
    result = train(tmp_path, "memory.recompute=units", "stages.2.memory.recompute=views", DIGESTS)
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == bits(serial)


def test_a_codec_changes_the_run_and_is_the_same_in_both_runtimes(serial: Path, tmp_path: Path) -> None:
    found = []
    for number, how in enumerate((["runtime=serial"], ["link.kind=p2p"], ["processes=2"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = train(folder, "link.codec=int8", DIGESTS, *how)
        assert result.returncode == 0, result.stderr
        found.append(bits(folder))
    assert found[0] == found[1] == found[2]
    assert found[0][0] != report(serial)["final_digest"]
    coded, plain = found[0][1][1], digests(serial)[1]
    assert coded[1] == plain[1], "images travel as they are"
    assert coded[2]["input"] != plain[2]["input"]


def test_replicas_compute_what_one_does_and_the_same_bits_every_time(serial: Path, tmp_path: Path) -> None:
    counts = [f"stages.{stage}.replicas={count}" for stage, count in enumerate((3, 2, 2, 1), 1)]
    found = []
    for number, how in enumerate(([], ["link.kind=p2p", "stages.2.engine.shard_optimizer=true"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = train(folder, "data.batch_size=66", DIGESTS, *counts, *how)
        assert result.returncode == 0, result.stderr
        found.append(bits(folder))
    assert found[0] == found[1]
    alone = tmp_path / "alone"
    alone.mkdir()
    assert train(alone, "data.batch_size=66", "runtime=serial", DIGESTS).returncode == 0
    # Three replicas have a third of the images each, and what they record is of all of them.
    inputs = [{step: stages[1]["input"] for step, stages in each.items()} for each in (digests(alone), found[0][1])]
    assert inputs[0] == inputs[1]
    assert list(inputs[0]) == [1, 3, 5]
    # Rounding is all that may differ, and a ReLU or a nearly constant channel makes much of it in single tensors; what
    # is equal in float64 is tested with the stage. A gradient of the wrong rows would change the momentum by a third.
    for stage in range(1, 5):
        one, many = (load_file(f / "run" / "final" / f"stage_{stage}.safetensors") for f in (alone, tmp_path / "0"))
        assert one.keys() == many.keys()
        for momentum, limit in ((False, 5e-6), (True, 2e-2)):
            names = [name for name in sorted(one) if name.startswith("optimizer.") == momentum]
            wanted, found = (torch.cat([whole[name].double().flatten() for name in names]) for whole in (one, many))
            error = (found - wanted).norm() / wanted.norm()
            assert error < limit, f"stage {stage}, {'momentum' if momentum else 'weights'}: {error:.1e}"


def test_a_run_without_snapshots_is_verified_from_its_beginning(serial: Path) -> None:
    result = onward("verify", serial / "run")
    assert (result.returncode, result.stderr) == (0, "")
    assert "steps 0 to 6 of " in result.stdout
    assert "are equal to the bit: the digests of 3 steps and every tensor after 6 steps, all stages" in result.stdout


def test_the_digest_sees_the_noise_and_the_seed(serial: Path, tmp_path: Path) -> None:
    found = {report(serial)["final_digest"]}
    for number, override in enumerate(["seed=2", "noise.kind=none"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert train(folder, "runtime=serial", override).returncode == 0
        found.add(report(folder)["final_digest"])
    assert len(found) == 3


def test_noise_in_the_last_block_leaves_the_others_alone(serial: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "runtime=serial", "stages.4.noise.std=0.26").returncode == 0
    assert report(tmp_path)["final_digest"] != report(serial)["final_digest"]
    same = {index: _same(serial, tmp_path, index) for index in range(1, 5)}
    assert same == {1: True, 2: True, 3: True, 4: False}


def _same(one: Path, other: Path, stage: int) -> bool:
    first, second = (load_file(folder / "run" / "final" / f"stage_{stage}.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


VIT = (
    "model={backbone: vit_b_16, patch_size: 7, hidden_dim: 32, num_layers: 3, num_heads: 4, mlp_dim: 64, "
    "cuts: [encoder.layers.encoder_layer_0, encoder.layers.encoder_layer_1]}"
)
TRACED = "model={backbone: 'torchvision.models:shufflenet_v2_x0_5', output: conv5, cuts: [stage2.1, stage3]}"
METHODS = {
    "sequential": ("mode=sequential", "noise.schedule=linear"),
    "another loss, head and optimizer in every block": (
        "stages.1={objective: {kind: simclr, negatives: single_patch}, head: {kind: lsp}, optimizer: {kind: sgd}}",
        "stages.2={objective: {kind: byol, predictor: [32]}, optimizer: {kind: lars_lr_in_momentum, clip_norm: 1.0}}",
        "stages.3={objective: {kind: vicreg}, head: {kind: gsp}, optimizer: {kind: adamw, exclude: type}}",
        "stages.4={objective: {kind: supervised}, head: {projector: [10]}, noise: {placement: input, relative: false}}",
    ),
    "bf16 over rpc": ("precision={dtype: bf16, channels_last: true}", "stages.3.precision.dtype=fp32", "link.kind=rpc"),
    "transformer": (VIT, "data.image_size=28", "objective.kind=lejepa"),
    "traced network": (TRACED,),
}  # fmt: skip


@pytest.mark.parametrize("overrides", METHODS.values(), ids=list(METHODS))
def test_every_part_of_the_method_is_the_same_in_both_runtimes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    found = []
    for runtime in ("serial", "pipelined"):
        folder = tmp_path / runtime
        folder.mkdir()
        result = train(folder, f"runtime={runtime}", "train.max_steps=3", DIGESTS, *overrides)
        assert result.returncode == 0, result.stderr
        found.append(bits(folder))
    assert found[0] == found[1]
    assert 1 in found[0][1]


NARROW = """
from torch import nn


def network():
    sizes = [(3, 4), (4, 6), (6, 6)]
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2), nn.BatchNorm2d(b), nn.ReLU()) for a, b in sizes]
    return nn.Sequential(*blocks)
"""
"""Three blocks of the same code and other sizes, for which a compiler takes half a minute, and not minutes."""


@pytest.mark.slow  # two minutes each: nothing that is compiled is there yet
@pytest.mark.timeout(5 * LIMIT)
@pytest.mark.parametrize("recompute", ["none", "units", "views"])
def test_a_compiled_run_is_the_same_in_both_runtimes_and_every_time(tmp_path: Path, recompute: str) -> None:
    """Other bits for each way to compute again, because another part is compiled as one."""
    (tmp_path / "narrow.py").write_text(NARROW)
    found = []
    for number, runtime in enumerate(("serial", "pipelined", "pipelined")):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start(
            folder, f"runtime={runtime}", "train.max_steps=2", "precision.compile=true", "head={kind: gsp}", DIGESTS,
            f"memory.recompute={recompute}",
            "head.projector=[8]", "model={backbone: 'narrow:network', output: '2', cuts: ['0', '1']}",
            # Each compiles for itself: what another has compiled would be the same.
            environment={"PYTHONPATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")},
            forked=False,
        )  # fmt: skip
        try:
            _, error = process.communicate(timeout=2 * LIMIT)
        finally:
            process.kill()
        assert process.returncode == 0, error
        found.append(bits(folder))
    assert found[0] == found[1] == found[2]


def test_end_to_end_is_one_process_whatever_the_runtime(tmp_path: Path) -> None:
    found = []
    for runtime in ("serial", "pipelined"):
        folder = tmp_path / runtime
        folder.mkdir()
        result = train(folder, f"runtime={runtime}", "train.max_steps=2", "mode=end_to_end", DIGESTS)
        assert result.returncode == 0, result.stderr
        assert "in one process" in result.stdout
        assert report(folder)["runtime"] == "serial"
        found.append(bits(folder))
    assert found[0] == found[1]
