"""How many cores a process may use: as many as its affinity names, and no more than its control groups grant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.processes.supervise import run_environment
from pipeline.config import Config
from workers.run import cores
from workers.run.environment import ALLOCATOR, PASSIVE_WAITS, process_environment, start_anew_with_allocator
from workers.run.files import RunDir


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores without a quota, and nothing that the user has set."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    for name in (*PASSIVE_WAITS, "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("quota", "usable"), [(None, 8), (64.0, 8), (3.9, 3), (0.5, 1)])
def test_a_quota_counts_like_fewer_cores(machine: pytest.MonkeyPatch, quota: float | None, usable: int) -> None:
    machine.setattr(cores, "cpu_quota", lambda: quota)
    assert cores.usable_cores() == usable


def test_a_system_without_affinity_has_all_its_cores(machine: pytest.MonkeyPatch) -> None:
    machine.delattr(os, "sched_getaffinity")
    machine.setattr(os, "cpu_count", lambda: 5)
    assert cores.allowed_cores() == set()
    assert cores.usable_cores() == 5


def test_the_smallest_quota_of_all_groups_above_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = cores.Path("/proc/self/cgroup").read_text()
    inside = next((line.removeprefix("0::/") for line in own.splitlines() if line.startswith("0::/")), "")
    (tmp_path / inside / "job").mkdir(parents=True)
    monkeypatch.setattr(cores, "CONTROL_GROUP", tmp_path)
    assert cores.cpu_quota() is None, "no such file"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.cpu_quota() is None
    (tmp_path / inside / "cpu.max").write_text("150000 100000\n")
    assert cores.cpu_quota() == 1.5


@pytest.mark.parametrize(
    ("threads", "processes", "passive"),
    [(2, 4, False), (2, 5, True), (8, 1, False), (9, 1, True), (1, 4, False), (1, 5, True)],
)
def test_threads_sleep_while_they_wait_where_they_outnumber_the_cores(
    machine: pytest.MonkeyPatch, threads: int, processes: int, passive: bool
) -> None:
    found = process_environment(threads, processes)
    assert {name: found.get(name) for name in PASSIVE_WAITS} == (
        PASSIVE_WAITS if passive else dict.fromkeys(PASSIVE_WAITS)
    )


@pytest.mark.parametrize("name", [*PASSIVE_WAITS, "GOMP_SPINCOUNT"])
def test_how_threads_wait_is_left_to_who_has_set_it(machine: pytest.MonkeyPatch, name: str) -> None:
    machine.setenv(name, "7")
    found = process_environment(threads=2, processes=50)
    assert {key: found[key] for key in (*PASSIVE_WAITS, "GOMP_SPINCOUNT") if key in found} == {name: "7"}


@pytest.mark.parametrize(("values", "passive"), [({"threads": 2}, False), ({"threads": 2, "replicas": 2}, True)])
def test_every_training_process_of_a_run_counts(
    machine: pytest.MonkeyPatch, tmp_path: Path, values: dict[str, int], passive: bool
) -> None:
    found = run_environment(Config.model_validate(values), RunDir(tmp_path))
    assert ("OMP_WAIT_POLICY" in found) == passive


@pytest.mark.parametrize(
    ("ranks", "passive"),
    [({"LOCAL_WORLD_SIZE": "5"}, True), ({"LOCAL_WORLD_SIZE": "4"}, False), ({"SLURM_TASKS_PER_NODE": "5(x2),1"}, True),
     ({}, False)],
)  # fmt: skip
def test_ranks_whose_threads_are_not_known_yet_may_have_two_each(
    machine: pytest.MonkeyPatch, ranks: dict[str, str], passive: bool
) -> None:
    started: list[dict[str, str]] = []
    for name in ("LOCAL_WORLD_SIZE", "SLURM_TASKS_PER_NODE", "OMP_NUM_THREADS", *ALLOCATOR):
        machine.delenv(name, raising=False)
    for name, value in ranks.items():
        machine.setenv(name, value)
    machine.setattr(os, "execve", lambda program, command, environment: started.append(environment))
    start_anew_with_allocator("launch.train")
    assert ["OMP_WAIT_POLICY" in environment for environment in started] == [passive]
