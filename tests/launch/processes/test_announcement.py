"""What the store of torchrun may say to a rank, and by whom: it is open to everybody who reaches its port."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from launch.prepare.recompute import with_recompute
from launch.prepare.run_dir import begin_run, check_run_dir, write_config
from launch.processes.announcement import Announcement, UntrustedAnnouncementError, verify
from launch.processes.apart import KEY, open_folder, verify_apart
from launch.processes.presence import settings_of
from launch.processes.supervise import make_private_dir
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import load_config
from tests.runs import TINY
from tests.strangers import NOBODY, needs_root
from workers.run.files import RunDir
from workers.run.keys import KEY_VARIABLE, write_key
from workers.topology.torchrun import RunGroup

Message = dict[str, Any]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return load_config(tmp_path / "tiny.yaml")


def run_of(config: Config, path: Path) -> RunDir:
    path.mkdir()
    begin_run(config, path)
    return RunDir(path.absolute())


class Announced:
    """A run, what rank 0 says about it, and the key."""

    def __init__(self, config: Config, folder: Path, hosts: int) -> None:
        self.config = config
        self.run = run_of(config, folder)
        private = make_private_dir() if hosts == 1 else ""
        self.key_file = Path(private) / "key" if private else self.run.key
        self.key = bytes.fromhex(self.key_file.read_text() if private else write_key(self.run.key))
        control: str | tuple[str, int] = f"{private}/control" if private else ("127.0.0.1", 2)
        self.announcement = Announcement(
            run_dir=str(self.run.path), private_dir=private, store="tcp://127.0.0.1:1", control=control
        )

    @property
    def message(self) -> Message:
        return json.loads(json.dumps(self.announcement.signed(self.key)))  # as it comes out of the store


@pytest.fixture(params=[1, 2], ids=["one host", "two hosts"])
def announced(request: pytest.FixtureRequest, config: Config, tmp_path: Path) -> Announced:
    return Announced(config, tmp_path / "run", request.param)


def test_a_rank_takes_what_rank_0_has_decided(announced: Announced) -> None:
    """And trains the rest as its own command line says."""
    decided = with_recompute(announced.config, {1: "units"})
    write_config(announced.run, decided)
    open_here = with_recompute(announced.config, {1: "auto"})
    assert verify(announced.message, open_here)[3].model_dump() == decided.model_dump()
    with pytest.raises(UserError, match="recompute is 'units' there, 'views' here"):
        verify(announced.message, with_recompute(announced.config, {1: "views"}))


def test_a_rank_believes_rank_0(announced: Announced) -> None:
    run, announcement, key, _ = verify(announced.message, announced.config)
    assert (run, announcement, key) == (announced.run, announced.announcement, announced.key)
    rendezvous = announcement.rendezvous(key)
    assert rendezvous.key == announced.key
    assert "key" not in announced.message
    assert announced.key.hex() not in str(announced.message)


@pytest.mark.parametrize("what", ["run_dir", "private_dir", "store", "control", "signature"])
def test_nothing_can_be_changed_on_the_way(announced: Announced, what: str, config: Config, tmp_path: Path) -> None:
    """Not even to another run, or another private folder, of the same user."""
    other = Announced(config, tmp_path / "other", 1 if announced.announcement.private_dir else 2)
    lie = {**announced.message, what: "elsewhere" if what in ("store", "control") else other.message[what]}
    if lie != announced.message:
        with pytest.raises(UntrustedAnnouncementError):
            verify(lie, announced.config)
    with pytest.raises(UntrustedAnnouncementError):
        verify({name: value for name, value in announced.message.items() if name != what}, announced.config)


def test_a_key_that_the_user_names_is_the_only_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = Announced(config, tmp_path / "run", 2)
    write_key(tmp_path / "key")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    with pytest.raises(UntrustedAnnouncementError, match="signature"):
        verify(announced.message, announced.config)
    signed = announced.announcement.signed(bytes.fromhex((tmp_path / "key").read_text()))
    assert verify(signed, announced.config)[2] == bytes.fromhex((tmp_path / "key").read_text())


class TestApart:
    """A rank that does not see the run directory."""

    @pytest.fixture
    def announced(self, config: Config, tmp_path: Path) -> Announced:
        announced = Announced(config, tmp_path / "run", 2)
        decided = with_recompute(config, {1: "units"})
        announced.announcement = replace(
            announced.announcement, digest=settings_of(decided)[1], recompute={"1": "units", "2": "none"}
        )
        return announced

    def test_takes_the_key_from_the_store(self, announced: Announced, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UntrustedAnnouncementError, match="it has no key, and ONWARD_KEY_FILE names none"):
            verify_apart(announced.message, announced.config)
        monkeypatch.chdir(announced.run.path)
        sent = {**announced.message, KEY: announced.key.hex()}
        open_here = with_recompute(announced.config, {1: "auto"})
        run, announcement, key, config = verify_apart(sent, open_here)
        assert (announcement, key) == (announced.announcement, announced.key)
        assert run.path == announced.run.path / "runs" / "run"  # not where the store says
        assert config.stage(1).memory.recompute == "units"
        with pytest.raises(UntrustedAnnouncementError, match="signature"):
            verify_apart({**sent, "store": "elsewhere"}, open_here)

    def test_believes_its_own_key_alone(
        self, announced: Announced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
        write_key(tmp_path / "key")
        sent = {**announced.message, KEY: announced.key.hex()}
        open_here = with_recompute(announced.config, {1: "auto"})
        with pytest.raises(UntrustedAnnouncementError, match="signature"):
            verify_apart(sent, open_here)
        (tmp_path / "key").write_text(announced.key.hex())
        assert verify_apart(announced.message, open_here)[2] == announced.key

    def test_trains_what_its_own_command_line_says(self, announced: Announced) -> None:
        sent = {**announced.message, KEY: announced.key.hex()}
        with pytest.raises(UserError, match="another configuration than rank 0"):
            verify_apart(sent, announced.config.model_copy(update={"seed": 7}))

    def test_leaves_word_of_where_the_run_is(self, announced: Announced, tmp_path: Path) -> None:
        run = RunDir(tmp_path / "here" / "run")
        run.path.mkdir(parents=True)
        run.failure.touch()
        open_folder(run, "node1", "/there/run")
        assert sorted(path.name for path in run.path.iterdir()) == ["elsewhere.json", "logs"]
        with pytest.raises(
            ConfigError, match=r"only logs of a run that host 'node1' keeps, in '/there/run'\. Let that"
        ):
            check_run_dir(announced.config.model_copy(update={"run_dir": str(run.path)}))
        open_folder(announced.run, "node1", "/there/run")  # with shared_run_dir=false it may be the same
        assert not announced.run.elsewhere.exists()


def linked(announced: Announced) -> None:
    announced.key_file.rename(announced.key_file.with_name("moved"))
    announced.key_file.symlink_to("moved")


@pytest.mark.parametrize(
    "harm",
    [
        lambda announced: announced.key_file.chmod(0o640),
        lambda announced: announced.key_file.unlink(),
        lambda announced: announced.key_file.write_text("no key"),
        lambda announced: (announced.key_file.unlink(), os.mkfifo(announced.key_file, 0o600)),
        linked,
    ],
    ids=["others may read it", "none", "no key", "a pipe", "a link"],
)
def test_a_key_that_others_may_have_seen_or_made_is_none(
    announced: Announced, harm: Callable[[Announced], object]
) -> None:
    harm(announced)
    with pytest.raises(UntrustedAnnouncementError):
        verify(announced.message, announced.config)


@needs_root
def test_the_folder_of_another_user_is_not_taken(announced: Announced) -> None:
    """He may have made all of it, the key too."""
    for path in (announced.run.path, announced.key_file):
        os.chown(path, NOBODY, NOBODY)
    with pytest.raises(UntrustedAnnouncementError, match="is not a "):
        verify(announced.message, announced.config)


@needs_root
def test_a_private_folder_of_another_user_is_not_taken(config: Config, tmp_path: Path) -> None:
    announced = Announced(config, tmp_path / "run", 1)
    os.chown(announced.key_file.parent, NOBODY, NOBODY)
    with pytest.raises(UntrustedAnnouncementError, match="is not a folder of this user alone"):
        verify(announced.message, announced.config)


def test_a_rank_trains_what_its_own_command_line_says(announced: Announced) -> None:
    """Never what lies in the folder that the store names."""
    other = announced.config.model_copy(update={"seed": 7})
    with pytest.raises(UserError, match=r"another configuration than rank 0: seed is 1 there, 7 here$"):
        verify(announced.message, other)


def test_the_run_that_the_command_line_names_counts_more_than_the_store(config: Config, tmp_path: Path) -> None:
    mine, other = Announced(config, tmp_path / "mine", 2), Announced(config, tmp_path / "other", 2)
    asked = config.model_copy(update={"run_dir": str(mine.run.path)})
    lie = replace(mine.announcement, run_dir=str(other.run.path))
    with pytest.raises(UntrustedAnnouncementError):
        verify(other.message, asked)
    run, _, _, _ = verify(lie.signed(mine.key), asked)
    assert run == mine.run


def test_a_lie_is_passed_over_and_the_truth_waited_for(announced: Announced, tmp_path: Path) -> None:
    store, heard = HashStore(), []
    lie = {**announced.message, "run_dir": str(tmp_path)}
    first, second = (RunGroup(rank, 2, rank, 2, store) for rank in (0, 1))
    first.publish("run", lie)

    def verified(message: Message) -> RunDir | None:
        heard.append(message)
        if len(heard) == 2:
            first.publish("run", announced.message)  # as rank 0 does, later than the liar
        try:
            return verify(message, announced.config)[0]
        except UntrustedAnnouncementError:
            return None

    assert second.look_up_valid("run", 60.0, verified) == announced.run
    assert heard == [lie, lie, announced.message]
