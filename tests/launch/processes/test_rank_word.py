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

from launch.prepare.run_dir import begin_run
from launch.processes.rank_word import NotOfRankZeroError, believe, rendezvous_of, sealed
from launch.processes.supervise import make_private_dir
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.loading import load_config
from tests.runs import TINY
from tests.strangers import NOBODY, needs_root
from workers.control.start_messages import RankStart
from workers.run.files import RunDir
from workers.run.keys import write_key
from workers.topology.torchrun import RunGroup

Word = dict[str, Any]


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


class Told:
    """A run, what rank 0 says about it, and the key."""

    def __init__(self, config: Config, folder: Path, hosts: int) -> None:
        self.config = config
        self.run = run_of(config, folder)
        private = make_private_dir() if hosts == 1 else ""
        self.key_file = Path(private) / "key" if private else self.run.key
        self.key = bytes.fromhex(self.key_file.read_text() if private else write_key(self.run.key))
        control: str | tuple[str, int] = f"{private}/control" if private else ("127.0.0.1", 2)
        self.prepared = RankStart(
            run_dir=str(self.run.path), private_dir=private, store="tcp://127.0.0.1:1", control=control
        )

    @property
    def word(self) -> Word:
        return json.loads(json.dumps(sealed(self.prepared, self.key)))  # as it comes out of the store


@pytest.fixture(params=[1, 2], ids=["one host", "two hosts"])
def told(request: pytest.FixtureRequest, config: Config, tmp_path: Path) -> Told:
    return Told(config, tmp_path / "run", request.param)


def test_a_rank_believes_rank_0(told: Told) -> None:
    run, prepared, key = believe(told.word, told.config)
    assert (run, prepared, key) == (told.run, told.prepared, told.key)
    rendezvous = rendezvous_of(prepared, key)
    assert rendezvous.key == told.key
    assert "key" not in told.word
    assert told.key.hex() not in str(told.word)


@pytest.mark.parametrize("what", ["run_dir", "private_dir", "store", "control", "seal"])
def test_nothing_can_be_changed_on_the_way(told: Told, what: str, config: Config, tmp_path: Path) -> None:
    """Not even to another run, or another private folder, of the same user."""
    other = Told(config, tmp_path / "other", 1 if told.prepared.private_dir else 2)
    lie = {**told.word, what: "elsewhere" if what in ("store", "control") else other.word[what]}
    if lie != told.word:
        with pytest.raises(NotOfRankZeroError):
            believe(lie, told.config)
    with pytest.raises(NotOfRankZeroError):
        believe({name: value for name, value in told.word.items() if name != what}, told.config)


def linked(told: Told) -> None:
    told.key_file.rename(told.key_file.with_name("moved"))
    told.key_file.symlink_to("moved")


@pytest.mark.parametrize(
    "harm",
    [
        lambda told: told.key_file.chmod(0o640),
        lambda told: told.key_file.unlink(),
        lambda told: told.key_file.write_text("no key"),
        lambda told: (told.key_file.unlink(), os.mkfifo(told.key_file, 0o600)),
        linked,
    ],
    ids=["others may read it", "none", "no key", "a pipe", "a link"],
)
def test_a_key_that_others_may_have_seen_or_made_is_none(told: Told, harm: Callable[[Told], object]) -> None:
    harm(told)
    with pytest.raises(NotOfRankZeroError):
        believe(told.word, told.config)


@needs_root
def test_the_folder_of_another_user_is_not_taken(told: Told) -> None:
    """He may have made all of it, the key too."""
    for path in (told.run.path, told.key_file):
        os.chown(path, NOBODY, NOBODY)
    with pytest.raises(NotOfRankZeroError, match="is not a "):
        believe(told.word, told.config)


@needs_root
def test_a_private_folder_of_another_user_is_not_taken(config: Config, tmp_path: Path) -> None:
    told = Told(config, tmp_path / "run", 1)
    os.chown(told.key_file.parent, NOBODY, NOBODY)
    with pytest.raises(NotOfRankZeroError, match="is not a folder of this user alone"):
        believe(told.word, told.config)


def test_a_rank_trains_what_its_own_command_line_says(told: Told) -> None:
    """Never what lies in the folder that the store names."""
    other = told.config.model_copy(update={"seed": 7})
    with pytest.raises(UserError, match=r"another configuration than rank 0: seed is 1 there, 7 here$"):
        believe(told.word, other)


def test_the_run_that_the_command_line_names_counts_more_than_the_store(config: Config, tmp_path: Path) -> None:
    mine, other = Told(config, tmp_path / "mine", 2), Told(config, tmp_path / "other", 2)
    asked = config.model_copy(update={"run_dir": str(mine.run.path)})
    lie = replace(mine.prepared, run_dir=str(other.run.path))
    with pytest.raises(NotOfRankZeroError):
        believe(other.word, asked)
    run, _, _ = believe(sealed(lie, mine.key), asked)
    assert run == mine.run


def test_a_lie_is_passed_over_and_the_truth_waited_for(told: Told, tmp_path: Path) -> None:
    store, heard = HashStore(), []
    lie = {**told.word, "run_dir": str(tmp_path)}
    first, second = (RunGroup(rank, 2, rank, 2, store) for rank in (0, 1))
    first.publish("run", lie)

    def believed(word: Word) -> RunDir | None:
        heard.append(word)
        if len(heard) == 2:
            first.publish("run", told.word)  # as rank 0 does, later than the liar
        try:
            return believe(word, told.config)[0]
        except NotOfRankZeroError:
            return None

    assert second.look_up_valid("run", 60.0, believed) == told.run
    assert heard == [lie, lie, told.word]
