"""A step is tried before it is trusted: what repeats is trained, what does not is named with what avoids it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.errors import ConfigError
from tests.marks import slow
from tests.pipeline.small import small_config
from tests.runs import report, train
from workers.determinism import check, step
from workers.determinism.check import check_steps, needs_check
from workers.determinism.child import Outcome, run_in_child
from workers.determinism.step import Trial, checksum, step_checksums, trials_of
from workers.determinism.twice import differences
from workers.run.files import RunDir

CPU = torch.device("cpu")
ALWAYS = {"check": True}


def restless(kind: str, **sections: Any) -> Config:
    """Two stages, in the second of which something is wrong."""
    backbone = {"backbone": "tests.workers.determinism.restless:network", "options": {"kind": kind}}
    return small_config(model={**backbone, "output": "second", "cuts": ["first"]}, **sections)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing has been tried yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onward" / "repeated"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """What is tried, and found to repeat itself, without a process for it."""
    trials: list[Trial] = []

    def take(config: Config, trial: Trial, device: torch.device) -> Outcome:
        trials.append(trial)
        return Outcome(result=[])

    monkeypatch.setattr(check, "differing_results", take)
    return trials


@pytest.mark.processes
@pytest.mark.parametrize(
    ("mode", "objective"),
    [("simultaneous", "barlow_twins"), ("sequential", "supervised"), ("end_to_end", "barlow_twins")],
)
def test_a_step_of_plain_kernels_repeats_itself(mode: str, objective: str) -> None:
    config = small_config(mode=mode, objective={"kind": objective}, noise={"kind": "all"})
    for trial in trials_of(config, [1, 4], [8]):
        assert run_in_child(partial(differences, config, trial, CPU), 200) == Outcome(result=[])


def test_all_that_a_step_computes_is_compared() -> None:
    sums = step_checksums(small_config(), Trial(2, 8, 0), CPU)
    assert list(sums)[:2] == ["what it sends", "the loss"]
    parts = {name.split(".")[0] for name in sums}
    assert {"the gradient of block", "the gradient of head", "block", "head", "optimizer"} <= parts


@pytest.mark.processes
def test_a_kernel_that_does_not_repeat_is_named_with_the_setting_that_avoids_it(tmp_path: Path) -> None:
    config = restless("restless", precision={"dtype": "bf16"})
    with pytest.raises(ConfigError) as refused:
        check_steps(config, RunDir(tmp_path), [1, 2], CPU)
    assert refused.value.path == "determinism.check"
    assert "a step of 8 images at stage 2, computed twice from one state" in refused.value.problem
    assert "first in aten.mul.Tensor" in refused.value.problem
    assert refused.value.remedy.startswith("With stages.2.precision.dtype=fp32 it repeats itself")


@pytest.mark.processes
def test_the_module_is_named_by_its_parameters_or_by_the_forward_it_is_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"first in aten\.mul\.Tensor of block\.second\.1\.") as refused:
        check_steps(restless("always", determinism=ALWAYS), RunDir(tmp_path), [2], CPU)
    assert "No setting of precision avoids it. determinism.check=false trains all the same" in str(refused.value)


@pytest.mark.processes
def test_without_dispatch_modes_the_gradient_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workers.determinism.search", None)
    config = restless("restless", precision={"dtype": "bf16"})
    with pytest.raises(ConfigError, match=r"first in the gradient of block\.second\.0\.weight of stage 2") as refused:
        check_steps(config, RunDir(tmp_path), [2], CPU)
    assert refused.value.remedy.startswith("With stages.2.precision.dtype=fp32")


@pytest.mark.processes
def test_a_kernel_that_ends_its_process_ends_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends its process by signal 11, in aten\.neg"):
        check_steps(restless("fatal", determinism=ALWAYS), RunDir(tmp_path), [1, 2], CPU)


@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (lambda: {"a": 1}, Outcome(result={"a": 1})),
        (lambda: 1 / 0, Outcome(error="ZeroDivisionError: division by zero")),
        (lambda: os.kill(os.getpid(), signal.SIGABRT), Outcome(signal=signal.SIGABRT)),
        (lambda: os._exit(3), Outcome(error="it ended without a word")),
    ],
)
@pytest.mark.processes
def test_a_child_tells_how_its_work_ended(work: Callable[[], Any], outcome: Outcome) -> None:
    assert run_in_child(work, 100) == outcome


@pytest.mark.processes
def test_a_child_that_is_late_is_ended() -> None:
    assert run_in_child(lambda: time.sleep(1000), 0.2) == Outcome(late=True)


@pytest.mark.processes
def test_a_child_keeps_no_connection_of_its_parent_open() -> None:
    reader, writer = os.pipe()

    def work() -> bool:
        try:
            os.write(writer, b"x")
        except OSError:
            return True
        return False

    assert run_in_child(work, 100) == Outcome(result=True)
    os.close(reader)
    os.close(writer)


@pytest.mark.processes
def test_a_child_does_not_free_what_its_parent_no_longer_uses() -> None:
    """Its connections, say: a store of torch.distributed that is freed where its thread is not ends the process."""
    freed = []

    class Connection:
        def __del__(self) -> None:
            freed.append(os.getpid())

    connection = Connection()
    connection.itself = connection  # type: ignore[attr-defined]  # only the collector of garbage frees it
    gc.disable()
    try:
        del connection
        assert run_in_child(lambda: [gc.collect() >= 0, len(freed)], 100) == Outcome(result=[True, 0])
    finally:
        gc.enable()
    gc.collect()
    assert freed == [os.getpid()]


@pytest.mark.parametrize(
    ("precision", "device", "wanted"),
    [
        ({}, "cpu", False),
        ({"dtype": "bf16"}, "cpu", True),
        ({"channels_last": True}, "cpu", True),
        ({"compile": True}, "cpu", True),
        ({}, "cuda", True),
    ],
)
def test_auto_tries_what_is_not_plain(precision: dict[str, Any], device: str, wanted: bool) -> None:
    assert needs_check(small_config(precision=precision), 1, torch.device(device)) is wanted
    for check_key in (True, False):
        config = small_config(precision=precision, determinism={"check": check_key})
        assert needs_check(config, 1, torch.device(device)) is check_key


def test_a_run_that_promises_no_bits_is_not_tried_by_itself() -> None:
    unpromised = {"level": "off"}
    assert not needs_check(small_config(determinism=unpromised), 1, torch.device("cuda"))
    assert needs_check(small_config(determinism={**unpromised, "check": True}), 1, torch.device("cuda"))


def test_only_the_stages_of_another_precision_are_tried(tried: list[Trial], tmp_path: Path) -> None:
    config = small_config(stages={3: {"precision": {"dtype": "bf16"}}})
    check_steps(config, RunDir(tmp_path), [1, 2, 3, 4], CPU)
    assert tried == [Trial(3, 8, 0)]


def test_what_was_tried_is_remembered_until_the_run_is_another(tried: list[Trial], tmp_path: Path) -> None:
    config = small_config(determinism=ALWAYS)
    for other in (config, config, small_config(determinism=ALWAYS, run_dir="elsewhere", seed=9)):
        check_steps(other, RunDir(tmp_path), [1, 2], CPU)
    assert tried == [Trial(1, 8, 0), Trial(2, 8, 0)]
    check_steps(small_config(determinism=ALWAYS, threads=2), RunDir(tmp_path), [1], CPU)
    assert len(tried) == 3
    check_steps(small_config(determinism={**ALWAYS, "level": "warn"}), RunDir(tmp_path), [1], CPU)
    assert len(tried) == 4, "other kernels compute"


def test_code_of_the_users_own_is_tried_every_time(tried: list[Trial], tmp_path: Path, cache: Path) -> None:
    config = restless("restless", determinism=ALWAYS)
    for _ in range(2):
        check_steps(config, RunDir(tmp_path), [1], CPU)
    assert len(tried) == 2
    assert not cache.exists()


def test_what_did_not_come_to_its_end_is_trained_and_tried_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [Outcome(late=True), Outcome(error="RuntimeError: out of memory")]
    monkeypatch.setattr(check, "differing_results", lambda *arguments: outcomes.pop())
    notes: list[str] = []
    for _ in range(2):
        check_steps(small_config(determinism=ALWAYS), RunDir(tmp_path), [1], CPU, notes.append)
    assert not outcomes
    assert notes == [
        "stage 1: a step of 8 images, tried twice, came to no end: RuntimeError: out of memory",
        "stage 1: a step of 8 images, tried twice, came to no end: not within 300 s",
    ]
    assert not list(cache.iterdir())


def test_a_cache_that_others_may_write_to_is_not_believed(tried: list[Trial], tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    for _ in range(2):
        check_steps(small_config(determinism=ALWAYS), RunDir(tmp_path), [1], CPU)
    assert len(tried) == 2


def test_nothing_is_remembered_where_nothing_can_be_written(
    tried: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        check_steps(small_config(determinism=ALWAYS), RunDir(tmp_path), [1], CPU)
    assert len(tried) == 2


def test_every_shape_of_a_run_is_tried() -> None:
    growing = small_config(data={"progressive": {"start_size": 8, "start_epoch": 0, "end_epoch": 2}})
    assert [trial.epoch for trial in trials_of(growing, [2], [8])] == [0, 1, 2]
    assert trials_of(small_config(), [1, 3], [8, 5]) == [Trial(s, r, 0) for s in (1, 3) for r in (8, 5)]
    assert trials_of(small_config(mode="end_to_end"), [1, 2, 3, 4], [8]) == [Trial(0, 8, 0)]


def test_bits_decide_and_not_values() -> None:
    values = torch.tensor([1.0, 2.0, float("nan"), -0.0])
    assert checksum(values) == checksum(values.clone())
    assert checksum(values) != checksum(values.flip(0))
    assert checksum(values) != checksum(torch.tensor([1.0, 2.0, float("nan"), 0.0]))
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64):
        assert checksum(torch.ones(3, 5).to(dtype)) == checksum(torch.ones(15).to(dtype))


def test_the_pieces_of_a_checksum_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = checksum(values)
    monkeypatch.setattr(step, "PIECE", 64)
    assert checksum(values) == whole


@pytest.mark.processes
@pytest.mark.parametrize("runtime", [slow("pipelined"), "serial"])
def test_a_run_that_does_not_repeat_is_refused_and_may_begin_with_the_remedy(tmp_path: Path, runtime: str) -> None:
    wrong = (
        "model={backbone: 'tests.workers.determinism.restless:network', options: {kind: restless}, "
        "output: second, cuts: [first]}",
        "precision.dtype=bf16", f"runtime={runtime}",
    )  # fmt: skip
    refused = train(tmp_path, *wrong)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: determinism.check: a step of 64 images at stage 2, computed twice")
    assert refused.stderr.count("\n") == 1
    remedied = train(tmp_path, *wrong, "stages.2.precision.dtype=fp32")
    assert remedied.returncode == 0, remedied.stderr


@pytest.mark.processes
def test_a_try_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    digests = []
    for name, checked in (("tried", "true"), ("trusted", "false")):
        folder = tmp_path / name
        folder.mkdir()
        done = train(folder, f"determinism.check={checked}")
        assert done.returncode == 0, done.stderr
        digests.append(report(folder)["final_digest"])
        tries = [log for log in (folder / "run" / "logs").glob("stage_*.log") if "repeats itself" in log.read_text()]
        assert len(tries) == (4 if checked == "true" else 0)
    assert digests[0] == digests[1]
