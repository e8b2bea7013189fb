"""Whether the processes that a launcher started are those of the run."""

from __future__ import annotations

from typing import Any

import pytest

from launch.prepare.link_kind import with_link
from launch.prepare.ranks import check_alone, check_processes, check_torchrun
from pipeline.config import Config
from pipeline.errors import UserError
from workers.topology.torchrun import RunGroup


def group(size: int, here: int | None = None) -> RunGroup:
    store: Any = None
    return RunGroup(0, size, 0, size if here is None else here, store)


@pytest.mark.parametrize(
    ("values", "processes", "environment", "message"),
    [
        ({}, group(2), {}, r"this run needs 4 processes .* torchrun started 2\. Give --nproc-per-node=4"),
        ({"restart": "stage"}, group(4), {}, r"^restart: got 'stage', and torchrun restarts all"),
        ({}, group(4), {"TORCHELASTIC_MAX_RESTARTS": "2"}, r"^run_dir: is not given"),
        (
            {"run_dir": "r", "link": {"kind": "queue"}},
            group(4, here=2),
            {},
            r"^link\.kind: got 'queue', which is shared memory",
        ),
        (
            {"run_dir": "r", "link": {"kind": "rpc", "rpc_transports": ("shm",)}},
            group(4, here=2),
            {},
            r"^link\.rpc_transports: got \[shm\], which is shared memory, .*Add uv",
        ),
    ],
)
def test_a_run_that_does_not_fit_them_is_refused(
    values: dict[str, Any],
    processes: RunGroup,
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        check_processes(Config.model_validate(values), processes)
    check_processes(Config(), group(4)) if not environment else None


@pytest.mark.parametrize(
    ("values", "on_one_host", "kind"),
    [
        ({}, True, "queue"),
        ({}, False, "p2p"),
        ({"link": {"kind": "rpc"}}, True, "rpc"),
        ({"link": {"kind": "queue"}}, False, "queue"),
        ({"runtime": "serial"}, True, "auto"),
    ],
    ids=["one host", "several", "given", "given, and refused later", "in one process there is none"],
)
def test_the_kind_of_link_follows_the_hosts(values: dict[str, Any], on_one_host: bool, kind: str) -> None:
    assert with_link(Config.model_validate(values), on_one_host).link.kind == kind


def test_a_restart_to_dead_addresses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_torchrun()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    check_torchrun()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(UserError, match="Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        check_torchrun()


def test_a_process_alone_is_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_alone(Config(runtime="serial"))
    with pytest.raises(UserError, match=r"a pipelined run needs 4 processes.*torchrun --nproc.*or give runtime=serial"):
        check_alone(Config())
    for name, value in {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    check_alone(Config(runtime="serial"))
    with pytest.raises(UserError, match=r"'srun --ntasks=4 python -m launch\.train'"):
        check_alone(Config())


def test_tasks_of_srun_are_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(UserError, match=r"srun started 2\. Give --ntasks=4, or other"):
        check_processes(Config(), group(2))
    with pytest.raises(UserError, match=r"srun restarts all .*Let Slurm requeue the job, or start the run with"):
        check_processes(Config.model_validate({"restart": "stage"}), group(4))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with pytest.raises(UserError, match=r"torchrun started 2\. Give --nproc-per-node=4"):
        check_processes(Config(), group(2))
