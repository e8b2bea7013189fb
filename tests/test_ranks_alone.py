"""Ranks that nobody ends when another fails, as under srun: those that wait hear of it, and end, too."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from launch.errors import EXIT_INTERRUPTED
from launch.prepare.ports import free_port
from tests.recovery import STEPS, disturbed, faults, python, undisturbed
from tests.runs import LIMIT, TINY, Process, ended_afterwards, wait_for_steps
from workers.control.failures import STOPPING
from workers.run.environment import ALLOCATOR

pytestmark = pytest.mark.processes


@contextlib.contextmanager
def ranks(folder: Path, *each: Sequence[str]) -> Iterator[list[Process]]:
    """Ranks on as many "hosts", which are this one; each is given arguments of its own."""
    (folder / "tiny.yaml").write_text(TINY)
    common = {"WORLD_SIZE": str(len(each)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", **ALLOCATOR}
    command = python("-m", "launch.train", str(folder / "tiny.yaml"), *STEPS, f"processes={len(each)}")
    started = [Process([*command, *own], {**common, "RANK": str(rank)}) for rank, own in enumerate(each)]
    with ended_afterwards(started):
        yield started


def errors(processes: list[Process]) -> list[list[str]]:
    """Our own lines of every rank, once all have ended."""
    return [re.findall(r"^error: (.*)$", process.communicate(LIMIT)[1], re.M) for process in processes]


def test_flags_that_exclude_each_other_on_one_host_end_all(tmp_path: Path) -> None:
    """The rank ended before it had told anybody, and the others waited for five minutes."""
    run = f"run_dir={tmp_path / 'run'}"
    with ranks(tmp_path, [run], [run, "-q", "-v"]) as processes:
        first, second = errors(processes)
        assert first == second
        assert re.fullmatch(r"\S+ \(rank 1\): .*-q.*", first[0])
        assert [process.returncode for process in processes] == [2, 2]
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_one_host_cannot_write_ends_all(tmp_path: Path) -> None:
    """It is opened once rank 0 has begun the run: its coordinator is told by way of the store."""
    (tmp_path / "file").touch()
    apart = "shared_run_dir=false"
    with ranks(
        tmp_path, [f"run_dir={tmp_path / 'run'}", apart], [f"run_dir={tmp_path / 'file/run'}", apart]
    ) as processes:
        first, second = errors(processes)
        assert [process.returncode for process in processes] == [2, 2], (first, second)
        assert re.fullmatch(r"run_dir: '.*/file/run' cannot be written \(.*", second[0])
        assert len(first) == 1
        assert re.fullmatch(rf"\S+ \(rank 1\): {re.escape(second[0])}", first[0])


@pytest.mark.slow
def test_ranks_that_stopped_do_not_say_that_they_are_done(tmp_path: Path) -> None:
    """All but the first ended with 0; a job that starts pods again one by one waited for ever for those of them."""
    with disturbed(tmp_path) as trial:
        given = [f"run_dir={trial.run}", faults(trial.pause(1, 5))]
        with ranks(tmp_path, given, given) as processes:
            wait_for_steps(tmp_path, 5, processes[0])
            processes[1].terminate()
            processes[0].wait_for(STOPPING)
            trial.go()
            assert [process.wait() for process in processes] == [EXIT_INTERRUPTED] * 2
        assert trial.train().returncode == 0
        assert trial.digest == undisturbed()
