"""Every line of `onward doctor`, from facts that are made up: right, worth knowing, or wrong with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.doctor.comparison import OtherHost, clock, same_versions, shared, speed, way
from launch.doctor.findings import Finding, page
from launch.doctor.limits import UNLIMITED, cores, memory, shared_memory, ulimits
from launch.doctor.names import interfaces, own_name
from launch.doctor.runs_folder import FolderFacts, folder_facts, runs_folder
from launch.doctor.software import GpuFacts, gpus, versions
from launch.processes.presence import SOURCES

GIB = 2**30
VERSIONS = {"Onward": "1.2", SOURCES: "abc", "PyTorch": "2.12.0", "Python": "3.12"}
NODE1 = OtherHost(host="node1", versions=VERSIONS, folder="/runs")
NODE2 = OtherHost(host="node2", versions=VERSIONS, folder="/data")
OLDER = OtherHost(host="node2", versions=VERSIONS | {"PyTorch": "2.11.0"})
TWO = GpuFacts(2, ("H100", "H100"), "570.1", "12.8")
MANY = {"NOFILE": 4096, "NPROC": UNLIMITED, "MEMLOCK": 1 << 16}

RIGHT = [
    (versions(VERSIONS, "12.8"), "Onward 1.2, PyTorch 2.12.0 for CUDA 12.8"),
    (versions(VERSIONS, ""), "without CUDA"),
    (gpus(GpuFacts(0)), "stages train on the CPU"),
    (gpus(TWO), "2 x H100, driver 570.1; each reaches every other"),
    (interfaces({"lo": ["127.0.0.1"], "eth0": ["10.0.0.1", "fd00::1"]}, ["10.0.0.1", "fd00::1"], "eth0"),
     "others are told 10.0.0.1 (eth0) first, then fd00::1"),
    (own_name("n", ["10.0.0.1"], ["10.0.0.1"]), "'n' is 10.0.0.1"),
    (own_name("n", ["127.0.1.1"], ["10.0.0.1"]), "leads other hosts to themselves; Onward does not go by it"),
    (memory({"MemAvailable": 8 * GIB}), "8.0 GiB available"),
    (memory({}), "does not say"),
    (cores(8, None), "8"),
    (cores(8, 8.0), "8"),
    (shared_memory(64 << 20, has_gpus=False), "without GPUs nothing needs it"),
    (shared_memory(0, has_gpus=False), "there is no /dev/shm"),
    (shared_memory(8 * GIB, has_gpus=True), "8192 MiB"),
    (ulimits(MANY, None, has_rdma=False), "open files 4,096, processes unlimited, locked memory 0.1 MiB"),
    (ulimits(MANY | {"NOFILE": UNLIMITED, "MEMLOCK": UNLIMITED}, 9999, has_rdma=True), "processes 9,999"),
    (runs_folder(FolderFacts(Path("/runs"), "", "exclusive", 90 * GIB)), "90 GiB free"),
    (same_versions(NODE1, NODE2), "the same on node1 and node2"),
    (clock(0.8, 0.01, "node1", "node2"), "agree within a second"),
    (clock(3.0, 2.5, "node1", "node2"), "agree within a second"),
    (way("node1", "node2", {"10.0.0.2": "10.0.0.1"}, ["10.1.0.2:7: no answer"]), "by 10.0.0.2; not by 10.1.0.2:7"),
    (speed(1e9, 0.0002), "1,000 MB/s over one connection, round trip 0.2 ms"),
    (shared(True, NODE1, NODE2), "node2 sees the file that node1 has written to '/runs'"),
]  # fmt: skip
WORTH_KNOWING = [
    (gpus(GpuFacts(2, ("L4", "L4"), "", "12.8", ((0, 1),))), "1 pairs have no peer access (0-1)", "Nothing is broken"),
    (interfaces({"lo": ["127.0.0.1"]}, [], None), "no other host reaches this one", "alone it can train"),
    (own_name("n", [], ["10.0.0.1"]), "'n' does not resolve", "/etc/hosts on every host"),
    (own_name("n", ["10.9.9.9"], ["10.0.0.1"]), "this host has no such address", "Correct /etc/hosts or the DNS"),
    (cores(8, 1.5), "8, of which the control group lets 1.5 work at a time", "Raise the quota"),
    (runs_folder(FolderFacts(Path("/runs"), "", "none", GIB)), "has no locks", "not with nolock"),
    (runs_folder(FolderFacts(Path("/runs"), "", "broken", GIB)), "has no locks", "not with nolock"),
    (runs_folder(FolderFacts(Path("/runs"), "", "exclusive", GIB)), "1 GiB free", "make room"),
    (clock(-5.0, 0.01, "node1", "node2"), "the clock of node2 is 5 s behind that of node1", "set-ntp"),
    (speed(1e7, 0.01), "10 MB/s", "onward check CONFIG"),
    (shared(False, NODE1, NODE2), "'/data' of node2 is another folder than '/runs' of node1", "mount the same"),
]
WRONG = [
    (gpus(GpuFacts(2)), "2, and PyTorch is built without CUDA", "Install PyTorch with CUDA"),
    (gpus(GpuFacts(2, (), "470.1", "12.8")), "PyTorch for CUDA 12.8 can use 0", "driver may be too old"),
    (memory({"MemAvailable": 8 * GIB, "cgroup": GIB}), "1.0 GiB available within", "Raise the limit of the container"),
    (memory({"MemAvailable": GIB}), "1.0 GiB available", "End other programs"),
    (shared_memory(64 << 20, has_gpus=True), "64 MiB", "--shm-size=8g"),
    (ulimits(MANY | {"NOFILE": 256}, None, has_rdma=False), "open files 256", "ulimit -n"),
    (ulimits(MANY, 100, has_rdma=False), "processes 100", "--pids-limit"),
    (ulimits(MANY | {"NPROC": 64}, 100, has_rdma=False), "processes 64", "ulimit -u"),
    (ulimits(MANY, None, has_rdma=True), "locked memory 0.1 MiB", "memlock=-1"),
    (runs_folder(FolderFacts(Path("/runs"), "Read-only file system", "none", GIB)), "cannot be written", "run_dir="),
    (same_versions(NODE1, OLDER), "node2 has PyTorch 2.11.0 and not 2.12.0 as node1", "Install the same"),
    (clock(90.0, 0.01, "node1", "node2"), "the clock of node2 is 90 s ahead of that of node1", "set-ntp"),
    (way("node1", "node2", {}, ["10.0.0.2:7: no answer"]), "node1 cannot connect", "Open all ports"),
]


@pytest.mark.parametrize(("finding", "text"), RIGHT)
def test_what_is_right(finding: Finding, text: str) -> None:
    assert (finding.remedy, finding.wrong) == ("", False)
    assert text in finding.text


@pytest.mark.parametrize(("finding", "text", "remedy"), WORTH_KNOWING)
def test_what_is_worth_knowing(finding: Finding, text: str, remedy: str) -> None:
    assert not finding.wrong
    assert text in finding.text
    assert remedy in finding.remedy


@pytest.mark.parametrize(("finding", "text", "remedy"), WRONG)
def test_what_is_wrong(finding: Finding, text: str, remedy: str) -> None:
    assert finding.wrong
    assert text in finding.text
    assert remedy in finding.remedy


def test_the_page_has_a_sign_and_a_remedy_for_every_line_and_fits_a_terminal() -> None:
    lines = page([RIGHT[0][0], WORTH_KNOWING[0][0], *(finding for finding, _, _ in WRONG)]).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["ok", "note", *["WRONG"] * len(WRONG)]
    assert sum(line.startswith(f"{' ' * 19}-> ") for line in lines) == 1 + len(WRONG)
    assert max(map(len, lines)) <= 112
    assert "\x1b" not in page([Finding("clock", "\x1b[2J")])  # another host may have sent it


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    facts = folder_facts(tmp_path / "not" / "there")
    assert (facts.folder, facts.error, facts.locks) == (tmp_path, "", "exclusive")
    assert not [*tmp_path.iterdir()]
