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


def test_on_several_hosts_the_whole_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--nproc-per-node` with the number of all processes would have been wrong there."""
    for name, value in {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "mine", "MASTER_ADDR": "node1"}.items():
        monkeypatch.setenv(name, value)
    five = Config.model_validate({"stages": {2: {"replicas": 2}}})
    torchrun = "torchrun --nnodes=2 --nproc-per-node={} --rdzv-backend=c10d --rdzv-id=mine --rdzv-endpoint=node1:29400 "
    with pytest.raises(UserError) as refused:
        check_processes(five, group(4, here=2), ["c.yaml", "seed=2"])
    assert str(refused.value) == (
        "this run needs 5 processes (one per stage, or per replica of a stage) and torchrun started 4 on 2 hosts. Give "
        f"on one host each (evenly it runs on 5 hosts (1 each)): {torchrun.format(3)}-m launch.train c.yaml seed=2; "
        f"{torchrun.format(2)}-m launch.train c.yaml seed=2, or other model.cuts, processes or replicas"
    )
    with pytest.raises(UserError) as refused:
        check_processes(Config(), group(6, here=3), ["c.yaml"])
    assert f"torchrun started 6 on 2 hosts. Give on every host: {torchrun.format(2)}-m launch.train c.yaml, or" in str(
        refused.value
    )
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_NNODES": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"srun started 4 on 2 hosts\. Give: srun --nodes=2 --ntasks=5 --ntasks-per-"):
        check_processes(five, group(4, here=2), ["c.yaml"])
