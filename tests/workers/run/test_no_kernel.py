"""An operation without a deterministic kernel: `strict` names it, `warn` notes it, `off` says what is not promised."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from launch.errors import in_one_line
from launch.prepare.config_differences import deciding_differences
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.stage.stage import Stage
from pipeline.validation.loading import parse_config
from tests.marks import slow
from tests.pipeline.small import batch_of, small_config
from tests.recovery import killed
from tests.runs import report, train
from tests.sources import PACKAGES, assert_clean, text_of
from tests.workers.determinism.test_determinism import restless
from workers.control.failures import failure_report
from workers.determinism import refusal
from workers.determinism.check import check_steps
from workers.determinism.child import Outcome
from workers.determinism.refusal import in_words
from workers.run.compute import set_up_compute
from workers.run.files import RunDir
from workers.run.no_kernel import CUBLAS, no_promise, note_operations, operation_of, strict_refusal

CPU = torch.device("cpu")
PUT = "determinism.level: stage 2 at step 0: put_ of block.second.1 has no deterministic kernel on this device"
NETWORK = "backbone: 'tests.workers.determinism.restless:network', output: second, cuts: [first]"
BY_CUBLAS = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or `at::Context::"
    "setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses CuBLAS and you have "
    "CUDA >= 10.2. To enable deterministic behavior in this case, you must set an environment variable before running "
    "your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8."
)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `set_up_compute` sets for the whole process."""
    threads, filled = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    level, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    monkeypatch.setenv(CUBLAS, os.environ.get(CUBLAS, ":4096:8"))
    with warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(level)
    torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = filled, benchmark


def raised_by(config: Config) -> RuntimeError:
    """By a step of the second stage."""
    set_up_compute(config)
    stage = Stage(config, 2, 4)

    def step() -> None:
        stage(torch.randn(2, 8, 8, 7, 7), 0, 0.0)
        stage.update(0)

    with pytest.raises(RuntimeError) as error:
        step()
    return error.value


def at_level(level: str, kind: str = "put") -> Config:
    return restless(kind, determinism={"level": level})


def test_strict_is_the_default_and_raises() -> None:
    assert Config().determinism.level == "strict"
    set_up_compute(Config())
    assert torch.get_deterministic_debug_mode() == 2
    assert not torch.backends.cudnn.benchmark
    assert os.environ[CUBLAS] == ":4096:8"


def test_warn_only_warns_and_off_lets_the_libraries_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_compute(at_level("warn"))
    assert torch.get_deterministic_debug_mode() == 1
    assert not torch.backends.cudnn.benchmark
    monkeypatch.delenv(CUBLAS)
    set_up_compute(at_level("off"))
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.backends.cudnn.benchmark
    assert CUBLAS not in os.environ


def test_off_is_a_word_also_where_yaml_reads_false() -> None:
    assert parse_config({"determinism": {"level": False}}).determinism.level == "off"
    with pytest.raises(ConfigError, match=r"level: unknown value true\. Allowed: strict, warn, off"):
        parse_config({"determinism": {"level": True}})


def test_only_one_place_chooses_kernels() -> None:
    chooses = re.compile(
        r"use_deterministic_algorithms\(|set_deterministic_debug_mode\(|cudnn\.(benchmark|deterministic) ="
    )

    def elsewhere(path: Path) -> Iterator[str]:
        if path.name != "compute.py":
            yield from (f"{found[0]} belongs into set_up_compute" for found in chooses.finditer(text_of(path)))

    assert_clean(PACKAGES, elsewhere)


@pytest.mark.parametrize(
    ("sentence", "operation"),
    [
        ("avg_pool_cuda does not have a deterministic implementation, but you set", "avg_pool_cuda"),
        ("Memory Efficient attention defaults to a non-deterministic algorithm. To", "Memory Efficient attention"),
        ("Flash Attention defaults to a non-deterministic algorithm. To", "Flash Attention"),
        ("cuDNN Attention defaults to a non-deterministic algorithm. To", "cuDNN Attention"),
        (BY_CUBLAS, "CuBLAS"),
        ("mat1 and mat2 shapes cannot be multiplied", None),
    ],
)  # fmt: skip
def test_what_pytorch_says_is_recognised(sentence: str, operation: str | None) -> None:
    assert operation_of(sentence) == operation


def test_pytorch_still_says_so() -> None:
    set_up_compute(Config())
    with pytest.raises(RuntimeError) as error:
        nn.MaxUnpool2d(2)(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    assert operation_of(str(error.value)) == "max_unpooling2d_forward_out"


def test_an_error_in_a_forward_pass_names_the_module() -> None:
    refused = strict_refusal(raised_by(at_level("strict")), "stage 2 at step 0")
    assert str(refused) == (
        f"{PUT}. Replace it, or determinism.level=warn to use it in a run whose bits are not promised"
    )


def test_other_errors_stay_as_they_are() -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert strict_refusal(error, "stage 2") is None
    assert in_words(error, at_level("strict"), 2, 0, CPU) is error
    assert strict_refusal(ValueError("put_ does not have a deterministic implementation"), "") is None


def test_a_variable_that_cublas_cannot_use_is_named_instead_of_an_operation() -> None:
    refused = in_words(RuntimeError(BY_CUBLAS), small_config(), 1, 0, CPU)
    assert str(refused) == (
        "determinism.level: 'strict' needs the environment variable CUBLAS_WORKSPACE_CONFIG to be ':4096:8' or ':16:8'"
        ". Unset it, or set it to one of these"
    )


@pytest.mark.processes
def test_an_error_in_a_backward_pass_is_searched_for_its_module() -> None:
    config = at_level("strict", "put_backward")
    error = in_words(raised_by(config), config, 2, 0, CPU)
    assert isinstance(error, ConfigError)
    assert error.problem == "stage 2 at step 0: aten.put_ of block.second.1 has no deterministic kernel on this device"
    assert failure_report("stage 2", 0, error).kind == "bad_input", "it would fail again after a restart"


def test_compiled_code_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be one operation, and take a minute."""
    config = at_level("strict", "put_backward")
    error = raised_by(config)
    monkeypatch.setattr(refusal, "last_operation", lambda *_: pytest.fail("searched"))
    compiled = config.model_copy(update={"precision": config.precision.model_copy(update={"compile": True})})
    named = in_words(error, compiled, 2, 0, CPU)
    assert isinstance(named, ConfigError)
    assert named.problem == "stage 2 at step 0: put_ has no deterministic kernel on this device"


def test_a_search_that_finds_nothing_leaves_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    config = at_level("strict", "put_backward")
    error = raised_by(config)
    for outcome in (Outcome(late=True), Outcome(error="RuntimeError: out of memory")):
        monkeypatch.setattr(refusal, "last_operation", lambda *_, told=outcome: (told, "aten.mul of block.first.0"))
        named = in_words(error, config, 2, 0, CPU)
        assert isinstance(named, ConfigError)
        assert named.problem == "stage 2 at step 0: put_ has no deterministic kernel on this device"


def test_a_command_that_has_no_stage_says_it_in_one_line_too() -> None:
    line, code = in_one_line(raised_by(at_level("strict")))
    assert line.startswith("error: determinism.level: put_ of block.second.1 has no deterministic kernel")
    assert code == 2


@pytest.mark.parametrize(("kind", "module"), [("put", " of block.second.1"), ("put_backward", "")])
def test_with_warn_each_operation_is_noted_once(kind: str, module: str) -> None:
    config = at_level("warn", kind)
    set_up_compute(config)
    notes: list[str] = []
    note_operations(notes.append)
    stage = Stage(config, 2, 4)
    for step in range(3):
        stage(torch.randn(2, 8, 8, 7, 7), step, 0.0)
        stage.update(step)
    assert notes == [
        f"stage 2: put_{module} has no deterministic kernel here: the bits of this run are not promised "
        "(determinism.level=warn)"
    ]


def test_other_warnings_stay_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
    note_operations(notes.append)
    warnings.warn("something else", UserWarning, stacklevel=1)
    assert shown == ["something else"]
    assert not notes


def test_only_off_promises_nothing_from_the_start() -> None:
    assert [no_promise(at_level(level)) is None for level in ("strict", "warn", "off")] == [True, True, False]


def test_a_run_goes_on_at_another_level() -> None:
    strict, warn = small_config(), small_config(determinism={"level": "warn"})
    assert not deciding_differences(strict, warn)


def test_the_levels_compute_the_same_bits_on_a_cpu() -> None:
    bits = []
    for level in ("strict", "warn", "off"):
        config = small_config(determinism={"level": level})
        set_up_compute(config)
        stage = Stage(config, 1, 4)
        stage(batch_of(config, 0), 0, 0.0)
        stage.update(0)
        bits.append([parameter.detach().clone() for parameter in stage.parameters()])
    assert all(torch.equal(a, b) for other in bits[1:] for a, b in zip(bits[0], other, strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["put", "put_backward"])
def test_a_trial_names_the_module_before_the_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = restless(kind, determinism={"check": True})
    with pytest.raises(ConfigError) as refused:
        check_steps(config, RunDir(tmp_path), [2], CPU)
    assert refused.value.path == "determinism.level"
    assert refused.value.problem == (
        "a step of 8 images at stage 2: aten.put_ of block.second.1 has no deterministic kernel on this device"
    )
    check_steps(restless(kind, determinism={"check": True, "level": "warn"}), RunDir(tmp_path), [2], CPU)


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["put", slow("put_backward")])
@pytest.mark.parametrize("runtime", [slow("pipelined"), "serial"])
def test_a_run_is_refused_in_one_line_and_may_be_had_with_a_note(tmp_path: Path, runtime: str, kind: str) -> None:
    settings = f"model={{{NETWORK}, options: {{kind: {kind}}}}}", f"runtime={runtime}"
    for level in ("strict", "warn"):
        (tmp_path / level).mkdir()
    refused = train(tmp_path / "strict", *settings)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {PUT.replace('put_', 'put_' if kind == 'put' else 'aten.put_')}")
    assert refused.stderr.count("\n") == 1
    noted = train(tmp_path / "warn", *settings, "determinism.level=warn")
    assert noted.returncode == 0, noted.stderr
    subject = "put_ of block.second.1" if kind == "put" else "put_"
    events = (tmp_path / "warn" / "run" / "events.jsonl").read_text()
    assert events.count(f"stage 2: {subject} has no deterministic kernel here") == 1
    assert "UserWarning" not in noted.stderr + "".join(
        log.read_text() for log in (tmp_path / "warn" / "run" / "logs").iterdir()
    )


@pytest.mark.processes
def test_a_run_without_promise_says_so_and_so_does_what_goes_on_with_it(tmp_path: Path) -> None:
    unpromised = "determinism.level=off: kernels are chosen for speed"
    steps = ("train.max_steps=6", "snapshots.every=3", "runtime=serial")
    killed(tmp_path, (2, 4), *steps, "determinism.level=off", snapshot=3)
    assert (tmp_path / "run" / "events.jsonl").read_text().count(unpromised) == 1
    resumed = train(tmp_path, *steps)
    assert resumed.returncode == 0, resumed.stderr
    assert unpromised in resumed.stdout + resumed.stderr
    assert report(tmp_path)["determinism"] == "strict"
