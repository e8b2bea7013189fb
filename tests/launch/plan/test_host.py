"""What is said that a run takes of the host, against a real run."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.plan.account import DataFacts, HostAccount, RunAccount
from launch.plan.child import AccountProcess
from launch.prepare.placement import place
from pipeline.data.sets import memory
from pipeline.validation.loading import load_config
from tests.runs import ENDLESS, command, start, wait_for_snapshot, wait_for_steps

pytestmark = pytest.mark.timeout(900)
LARGE = (
    "data.batch_size=512", "model.width=16", "model.cuts=[layer2]", "head.width=64", "snapshots.every=2",
    "snapshots.keep_last=1000", "metrics.enabled=false", ENDLESS,
)  # fmt: skip
"""Of the tiny run, in which the tensors of a stage outweigh its process."""
STEPS = 4


@dataclass
class Measured:
    """A real run, and what was said of it."""

    folder: Path
    account: RunAccount
    pids: dict[str, int]
    resident: dict[str, int]
    """Most that each process has had, in bytes."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("host")
    command(folder)
    config = load_config(folder / "tiny.yaml", list(LARGE))
    run = start(folder, "device=cpu", *LARGE)
    try:
        with AccountProcess() as process:
            facts = DataFacts(images=10_000, test_images=2_000, classes=10)
            *_, account = process.account(config, place(config, 0), facts, {})
        wait_for_steps(folder, STEPS, run)
        wait_for_snapshot(folder, 2, run)
        logs = {path.stem: path.read_text() for path in (folder / "run" / "logs").iterdir()}
        pids = {name: int(found[1]) for name, text in logs.items() if (found := re.search(r"process (\d+)", text))}
        resident = {name: highest_resident(pid) for name, pid in pids.items()}
        yield Measured(folder, account, pids, resident)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()


def highest_resident(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def mapped(pid: int, label: str) -> int:
    """Bytes of nameless files of this label that a process maps."""
    lines = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if f"/memfd:{label}" in line]
    ends = [line.split()[0].split("-") for line in lines]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


@pytest.mark.processes
def test_the_shared_memory_of_links_and_feed_is_what_was_said(measured: Measured) -> None:
    first, second = measured.account.links
    assert mapped(measured.pids["coordinator"], "onward-link") == first.shared
    assert mapped(measured.pids["stage_1"], "onward-link") == first.shared + second.shared
    assert mapped(measured.pids["stage_2"], "onward-link") == second.shared
    feeds = next(term for term in measured.account.host.terms if term.name == "feeds")
    assert mapped(measured.pids["coordinator"], "onward-feed") == feeds.low == feeds.high


@pytest.mark.processes
def test_a_link_counts_as_many_bytes_a_step_as_was_said(measured: Measured) -> None:
    line = json.loads((measured.folder / "run" / "metrics.jsonl").read_text().splitlines()[STEPS - 1])
    sent = line["stages"][0]["link_bytes"] / (line["stages"][0]["step"] + 1)
    assert sent == measured.account.links[1].bytes_per_step


@pytest.mark.processes
def test_a_snapshot_is_as_large_as_was_said_and_its_header(measured: Measured) -> None:
    for index, part in enumerate(measured.account.snapshots, 1):
        content = (measured.folder / "run" / "snapshots" / "step_2" / f"stage_{index}.safetensors").read_bytes()
        assert len(content) - 8 - int.from_bytes(content[:8], "little") == part.disk == part.copy


@pytest.mark.processes
def test_no_stage_takes_more_than_the_upper_end_of_its_range(measured: Measured) -> None:
    for group in measured.account.groups:
        assert group.resident is not None
        seen = measured.resident[group.name.replace(" ", "_")]
        assert group.resident[0] <= seen <= group.resident[1], (group.name, seen, group.resident)


@pytest.mark.parametrize(("available", "fits"), [(100, False), (300, None), (500, True)])
def test_a_host_has_enough_or_not_or_perhaps(available: int, fits: bool | None) -> None:
    limits = {"MemAvailable": 10**6, "cgroup": available}
    assert HostAccount(terms=(), low=200, high=400, shared=0, limits=limits, unknown=()).fits is fits


def test_a_control_group_without_a_limit_bounds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the first version it has a limit above 2^60 then."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("4096")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "none")
    for limit, found in ((9223372036854771712, False), (2**30, True)):
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(limit))
        assert ("cgroup" in memory.memory_limits()) is found
