"""What the ranks on several hosts make sure of together; here every rank is a thread with a host name of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from launch.processes import start_check
from launch.processes.error_file import VARIABLE, write_error_file
from launch.processes.presence import Presence, Problem, Reached, differences_from_first, in_words
from launch.processes.shared_folder import nearest_folder
from launch.processes.start_check import Agreement, neighbours
from pipeline.config import Config
from tests.launch.processes.start_ranks import HOSTS, RANKS, Ranks, current_rank, patched_for
from workers.control.validation import MalformedMessage
from workers.topology import network


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(tmp_path, monkeypatch)


def _for_others(given: Callable[[], Any], value: bytes) -> Callable[[], Any]:
    """What ranks 0 and 3 are given, beside what the others are."""
    return lambda: value if current_rank() in (0, 3) else given()


def test_ranks_that_fit_agree_on_an_address_and_leave_nothing_behind(ranks: Ranks) -> None:
    (ranks.folder / "runs").mkdir()
    assert ranks.agree() == [Agreement("127.0.0.1", "127.0.0.1", "node1", (), HOSTS)] * RANKS
    assert list((ranks.folder / "runs").iterdir()) == []
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["TP_SOCKET_IFNAME"] == "lo"


def test_an_address_that_one_rank_does_not_reach_is_not_taken(ranks: Ranks) -> None:
    """Loopback of another host: some answer there, but not the right one."""
    addresses = [each for found in network.addresses_by_interface().values() for each in found]
    outside = [each for each in addresses if not each.startswith("127.") and each != "::1"]
    if not outside:
        pytest.skip("this machine has no address but loopback")
    real = network.reach

    def reach(address: str, port: int, token: str) -> str:
        if address.startswith("127."):
            raise ConnectionRefusedError(111, "Connection refused")
        return real(address, port, token)

    ranks.patch.setattr(network, "reach", reach)
    found = ranks.agree()
    assert {each.coordinator in outside for each in found if isinstance(each, Agreement)} == {True}, found


def test_other_versions_are_said_once_with_hosts_and_ranks(ranks: Ranks) -> None:
    for rank, what, version in ((2, "PyTorch", "1.0"), (3, "PyTorch", "1.0"), (1, "source files of Onward", "abc")):
        own = {**start_check.own_versions(), what: version}
        patched_for(ranks, start_check, "own_versions", rank, lambda own=own: own)
    sentence = ranks.refused()
    assert "node2 (ranks 2, 3) has PyTorch 1.0 and not " in sentence
    assert sentence.count("PyTorch 1.0") == 1
    assert "node1 (rank 1) has other source files of Onward (digest abc) than rank 0 on node1 (" in sentence


def test_another_configuration_is_named_by_its_keys(ranks: Ranks) -> None:
    ranks.overrides[3] += ("seed=7", "network.interface=lo")
    assert ranks.refused() == (
        "node2 (rank 3) was given another configuration than rank 0 on node1: seed is 7, not 1. Give every host the "
        "same command line and the same file"
    )


def test_secrets_that_differ_are_not_shown() -> None:
    first, other = (
        Presence(rank=rank, host="node1", settings={"seed": "1"}, digest=digest)
        for rank, digest in enumerate(("a", "b"))
    )
    (problem,) = differences_from_first([first, other])
    assert problem.text.endswith("in values that are not shown, because they may be secret")


def test_a_folder_that_is_not_shared_is_found_before_anything_is_written(ranks: Ranks) -> None:
    ranks.patch.setattr("launch.processes.shared_folder.SEE_SECONDS", 0.1)
    elsewhere = ranks.folder / "elsewhere"
    elsewhere.mkdir()
    ranks.overrides = [(*each, "shared_run_dir=true") for each in ranks.overrides]
    ranks.overrides[2] = ranks.overrides[3] = (f"run_dir={elsewhere / 'runs' / 'run'}", "shared_run_dir=true")
    sentence = ranks.refused()
    assert f"node2 (ranks 2, 3) sees another folder '{elsewhere}' than rank 0 on node1: it is not shared" in sentence
    assert "Mount the same folder on every host" in sentence
    assert list(elsewhere.iterdir()) == []


def test_what_one_host_writes_the_other_must_see(ranks: Ranks) -> None:
    """A copy of rank 0's folder, as a file system that is synchronised in one direction."""
    (ranks.folder / "copy").mkdir()
    patched_for(
        ranks, start_check, "answer_mark", 2,
        lambda folder, mark, token, writer: start_check.write_mark(ranks.folder / "copy", token),
    )  # fmt: skip
    ranks.patch.setattr("launch.processes.shared_folder.SEE_SECONDS", 0.1)
    (found, *_) = ranks.agree()
    assert isinstance(found, Agreement)
    assert found.apart == (2,)
    ranks.again("shared_run_dir=true")
    assert "node2 (rank 2) writes to another folder than" in ranks.refused()


def test_where_the_folder_is_not_shared_all_know_who_does_not_see_it(
    ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.processes.shared_folder.SEE_SECONDS", 0.1)
    elsewhere = ranks.folder / "elsewhere"
    elsewhere.mkdir()
    ranks.overrides[2] = ranks.overrides[3] = (f"run_dir={elsewhere / 'run'}",)
    assert ranks.agree() == [Agreement("127.0.0.1", "127.0.0.1", "node1", (2, 3), HOSTS)] * RANKS
    (said,) = ranks.said
    assert said.startswith("node2 and node1 do not share the run directory: node1 keeps the run. The key of its")
    assert "through torchrun's store, where anybody who reaches its port can read it: ONWARD_KEY_FILE=FILE" in said
    (tmp_path / "key").write_text(64 * "a")
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("ONWARD_KEY_FILE", str(tmp_path / "key"))
    ranks.again()
    assert ranks.agree()[0] == Agreement("127.0.0.1", "127.0.0.1", "node1", (2, 3), HOSTS)
    assert ranks.said == ["node2 and node1 do not share the run directory: node1 keeps the run"]
    assert list(elsewhere.iterdir()) == []


def test_who_wants_it_so_shares_nothing(ranks: Ranks) -> None:
    ranks.again("shared_run_dir=false")
    assert ranks.agree() == [Agreement("127.0.0.1", "127.0.0.1", "node1", (1, 2, 3), HOSTS)] * RANKS
    assert list(ranks.folder.iterdir()) == [ranks.folder / "tiny.yaml"]


def test_a_host_with_another_run_in_the_folder_is_refused(ranks: Ranks) -> None:
    """It may be the one that has kept the run so far."""
    ranks.patch.setattr("launch.processes.shared_folder.SEE_SECONDS", 0.1)
    elsewhere = ranks.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").touch()
    ranks.overrides[3] = (f"run_dir={elsewhere}",)
    sentence = ranks.refused()
    assert sentence.startswith("node2 (rank 3) ")
    assert ", and there is another run in it. Give another run_dir=FOLDER, or let this host be the first" in sentence


def test_hosts_with_other_keys_are_named(ranks: Ranks) -> None:
    for rank, key in ((1, b"a"), (2, None)):
        patched_for(ranks, start_check, "given_key", rank, lambda key=key: key)
    ranks.patch.setattr(start_check, "given_key", _for_others(start_check.given_key, b"b"))
    sentence = ranks.refused()
    assert "node1 (rank 1) has another key in ONWARD_KEY_FILE: not as rank 0 on node1. Give every host" in sentence
    assert "node2 (rank 2) has no ONWARD_KEY_FILE: not as rank 0 on node1, which has one. Give every host" in sentence
    assert "rank 3" not in sentence


@pytest.mark.parametrize("name", ["../../run/config.yaml", "/etc/hosts", ".onward-0123456789abcdef.1.tmp/../x", "x"])
def test_nobody_can_have_another_file_removed(name: str) -> None:
    """Rank 0 removes the files that the others name, and whoever reaches the store can write there."""
    with pytest.raises(MalformedMessage):
        Reached.from_message({"mark": name})
    with pytest.raises(MalformedMessage):
        Presence.from_message({"rank": 0, "host": "a", "mark": name})


def test_neighbours_that_do_not_reach_each_other_are_named(ranks: Ranks) -> None:
    tried: list[dict[Any, Any]] = []
    real = start_check.reach_each

    def reach_each(targets: Any) -> dict[Any, Any]:
        found = real(targets)
        if current_rank() == 2:
            tried.append(found)
            if len(tried) == 2:
                return dict.fromkeys(found, TimeoutError("timed out"))
        return found

    ranks.patch.setattr(start_check, "reach_each", reach_each)
    sentence = ranks.refused()
    for neighbour in ("rank 1 on node1 (127.0.0.1:", "rank 3 on node2 (127.0.0.1:"):
        assert f"node2 (rank 2) cannot connect to {neighbour}" in sentence
    assert ": no answer). Open all ports between the hosts (firewall)" in sentence


def test_a_host_that_nobody_reaches_ends_all(ranks: Ranks) -> None:
    real = start_check.reach_each

    def none(targets: Any) -> dict[Any, Any]:
        found = real(targets)
        return dict.fromkeys(found, TimeoutError("timed out")) if current_rank() == 3 else found

    ranks.patch.setattr(start_check, "reach_each", none)
    sentence = ranks.refused()
    assert sentence.startswith("node2 (rank 3) cannot connect to rank 0 on node1 (127.0.0.1:")
    assert "network.address=ADDRESS" in sentence


def test_what_is_wrong_everywhere_is_said_without_names(ranks: Ranks) -> None:
    ranks.overrides = [(*each, "processes=2") for each in ranks.overrides]
    assert ranks.refused().startswith("this run needs 2 processes")


def test_neighbours_are_those_that_links_and_replicas_need() -> None:
    config = Config.model_validate({"stages": {2: {"replicas": 2}}})
    assert [neighbours(config, rank) for rank in range(5)] == [[1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 4], [3]]


def test_several_hosts_with_one_problem_share_a_sentence() -> None:
    problems = [Problem(rank=rank, host=host, text=" is late", remedy="Wait") for rank, host in ((1, "a"), (4, "b"))]
    other = Problem(rank=2, host="a", text=" is early", remedy="Go")
    assert in_words([*problems, other], 9) == "a (rank 1) and b (rank 4) is late. Wait. Also: a (rank 2) is early. Go"


def test_the_nearest_folder_is_the_run_directory_once_it_is_there(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / "a" / "b") == (tmp_path, 2)
    assert nearest_folder(tmp_path) == (tmp_path, 0)


def test_torchrun_shows_our_sentence_in_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv(VARIABLE, str(path))
    write_error_file("error: the first")
    write_error_file("error: a later one")
    summary = str(ChildFailedError("launch.train", {0: ProcessFailure(0, 1, 2, str(path))}))
    assert "error: the first" in summary
    assert "later" not in summary
    monkeypatch.delenv(VARIABLE)
    write_error_file("nobody reads this")
