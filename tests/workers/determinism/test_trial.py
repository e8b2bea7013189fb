"""A trial runs in a process that can use the device: forked for a CPU, in a new interpreter for a GPU."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.errors import ConfigError
from tests.marks import slow
from tests.pipeline.small import small_config
from tests.runs import Process
from tests.workers.determinism.test_determinism import restless
from workers.determinism import check, trial, verified
from workers.determinism.check import check_steps
from workers.determinism.child import Note, Outcome, run_in_interpreter
from workers.determinism.step import Trial
from workers.determinism.trial import differing_operation, differing_results
from workers.determinism.twice import DIFFERENCES, FIRST_OPERATION
from workers.run.environment import interpreter
from workers.run.files import RunDir
from workers.run.no_kernel import operation_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)
BF16 = {"dtype": "bf16"}


def in_interpreter(work: str, config: Config, stage: int = 2, seconds: float = 200.0) -> tuple[Outcome, str]:
    """As for a GPU, but on the CPU."""
    return trial._run(work, config, Trial(stage, 8, 0), CPU, forks=False, seconds=seconds)


@pytest.mark.processes
@pytest.mark.slow
def test_a_new_interpreter_finds_what_a_forked_process_does() -> None:
    assert in_interpreter(DIFFERENCES, small_config(), 1)[0] == Outcome(result=[])
    differing = restless("restless", precision=BF16)
    there, here = in_interpreter(DIFFERENCES, differing)[0], differing_results(differing, Trial(2, 8, 0), CPU)
    assert there == here
    assert "the gradient of block.second.0.weight of stage 2" in here.result
    found = in_interpreter(FIRST_OPERATION, differing)[0]
    assert found == differing_operation(differing, Trial(2, 8, 0), CPU)[0]
    assert found.result.startswith("aten.mul.Tensor of block.second.1")


@pytest.mark.processes
@pytest.mark.slow
def test_what_a_new_interpreter_did_last_is_known_after_it_has_crashed() -> None:
    outcome, last = in_interpreter(FIRST_OPERATION, restless("fatal"))
    assert outcome == Outcome(signal=signal.SIGSEGV)
    assert last == "aten.neg of block.second.1"


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["put", slow("put_backward")])
def test_a_new_interpreter_tells_of_an_operation_without_a_deterministic_kernel(kind: str) -> None:
    outcome, last = in_interpreter(FIRST_OPERATION, restless(kind))
    assert operation_of(outcome.error) == "put_"
    assert last == "aten.put_ of block.second.1"


@pytest.mark.processes
def test_a_new_interpreter_that_is_late_is_ended() -> None:
    assert in_interpreter(DIFFERENCES, small_config(), seconds=0.001)[0] == Outcome(late=True)


@pytest.mark.processes
def test_a_module_that_cannot_be_run_is_an_outcome() -> None:
    note = Note()
    assert run_in_interpreter("workers.no_such_module", {}, note, 100) == Outcome(error="it ended without a word")
    note.close()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(not hasattr(torch._C, "_cuda_isInBadFork"), reason="PyTorch has no CUDA: any GPU build runs it")
def test_after_a_question_about_gpus_only_a_new_interpreter_can_use_them() -> None:
    asking = Process(interpreter("tests.workers.determinism.cuda_asked_main"), {"PYTHONPATH": os.getcwd()})
    out, err = asking.communicate()
    assert json.loads(out) == [False, True, "here"], err


class FakeGpu:
    """Stands for new interpreters, of which each has a GPU; nobody may fork."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]) -> None:
        self.tasks: list[Mapping[str, Any]] = []
        self._outcomes = outcomes
        monkeypatch.setattr(trial, "run_in_interpreter", self.run)
        monkeypatch.setattr(os, "fork", lambda: pytest.fail("a forked process cannot use CUDA"))
        monkeypatch.setattr(verified, "machine_facts", lambda device: {"gpu": str(device)})

    def run(self, module: str, task: Mapping[str, Any], note: Note, seconds: float) -> Outcome:
        self.tasks.append(task)
        note.write("aten.cudnn_batch_norm_backward of block.second.3")
        return self._outcomes.pop(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been tried yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_on_a_gpu_nothing_is_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, [Outcome(result=[]), Outcome(result=[])])
    config = small_config()
    for _ in range(2):
        check_steps(config, RunDir(tmp_path), [1, 2], GPU)
    assert [(task["work"], task["device"], task["trial"]["stage"]) for task in gpu.tasks] == [
        (DIFFERENCES, "cuda:1", 1),
        (DIFFERENCES, "cuda:1", 2),
    ]
    assert all(Config.model_validate_json(task["config"]) == config for task in gpu.tasks)


def test_on_a_gpu_the_search_runs_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = "RuntimeError: adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"
    gpu = FakeGpu(monkeypatch, [Outcome(error=raised), Outcome(error=raised), Outcome(result=[])])
    with pytest.raises(ConfigError) as refused:
        check_steps(small_config(precision={"tf32": True}), RunDir(tmp_path), [2], GPU)
    assert [task["work"] for task in gpu.tasks] == [DIFFERENCES, FIRST_OPERATION, DIFFERENCES]
    assert str(refused.value) == (
        "determinism.level: a step of 8 images at stage 2: aten.cudnn_batch_norm_backward of block.second.3 has no "
        "deterministic kernel on this device. With precision.tf32=false it is not used. Give that, or "
        "determinism.level=warn to use it in a run whose bits are not promised"
    )


def test_with_warn_strict_is_the_first_setting_that_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    differs = Outcome(result=["the gradient of block.unit.weight of stage 2"])
    gpu = FakeGpu(monkeypatch, [differs, Outcome(result=""), Outcome(result=[])])
    with pytest.raises(ConfigError, match=r"With determinism\.level=strict it repeats itself") as refused:
        check_steps(small_config(determinism={"level": "warn"}), RunDir(tmp_path), [2], GPU)
    assert "first in the gradient of block.unit.weight of stage 2" in refused.value.problem
    assert Config.model_validate_json(gpu.tasks[-1]["config"]).determinism.level == "strict"


def test_a_gpu_that_could_not_be_tried_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, [Outcome(error="RuntimeError: CUDA error: out of memory")])
    notes: list[str] = []
    check_steps(small_config(), RunDir(tmp_path), [1], GPU, notes.append)
    assert notes == [
        "stage 1: a step of 8 images, tried twice, came to no end: RuntimeError: CUDA error: out of memory"
    ]
    assert check.needs_check(small_config(), 1, GPU)
