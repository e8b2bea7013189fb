"""Where a run came from: every start is kept, with the user's own modules as they were, and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.prepare.git_commit import git_commits
from launch.prepare.prepared_run import prepare_run
from launch.prepare.provenance import read_starts, record_start
from launch.prepare.run_dir import begin_run
from launch.prepare.user_modules import MAX_FILE, user_modules
from pipeline.config import Config
from pipeline.config.secrets import HIDDEN
from pipeline.validation.loading import load_config
from workers.run.files import RunDir

LOSS = """\
import json
import numpy
import torch.nn
from mine.near import distance
from pipeline.objectives import Objective

def later():
    from mine import lazily
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a loss of the user's, a package that it uses, and files that nobody imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    files = {"losses_of_mine.py": LOSS, "mine/__init__.py": "", "mine/near.py": "from . import far\n",
             "mine/far.py": "import missing_module\n", "mine/lazily.py": "", "other.py": "", "mine/data.txt": "x",
             "torch.py": "raise RuntimeError\n"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def config(**values: Any) -> Config:
    """Validated, without that anything it names is imported."""
    return Config.model_validate_json(json.dumps({"objective": {"kind": "losses_of_mine:Loss"}, **values}))


def begun(run: Path, of: Config) -> RunDir:
    run.mkdir()
    begin_run(of, run)
    return RunDir(run)


def copies(run: RunDir) -> dict[str, str]:
    return {str(path.relative_to(run.path)): path.read_text() for path in run.modules.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("own")
def test_the_users_modules_are_found_as_python_finds_them_and_no_others() -> None:
    before = set(sys.modules)
    found = [module.name for module in user_modules(config())]
    assert sorted(found) == ["losses_of_mine", "mine", "mine.far", "mine.lazily", "mine.near"]
    assert found[0] == "losses_of_mine", "what the configuration names comes first"
    assert not {name for name in set(sys.modules) - before if name.startswith(("mine", "losses_of"))}, (
        "none is imported"
    )
    several = {"kind": "simclr"}, {"kind": "other:Loss"}
    stages = {str(number): {"objective": kind} for number, kind in enumerate(several, 1)}
    trackers = [{"kind": "losses_of_mine:Tracker"}, {"kind": "workers.observing.trackers:Tracker"}]
    both = config(stages=stages, trackers=trackers)
    assert {"other", "losses_of_mine"} <= {module.name for module in user_modules(both)}
    assert user_modules(Config()) == []


def test_a_file_that_is_too_large_or_cannot_be_read_is_named_and_not_copied(own: Path, tmp_path: Path) -> None:
    (own / "mine" / "near.py").write_bytes(b"#" * (MAX_FILE + 1))
    (own / "mine" / "lazily.py").unlink()
    os.mkfifo(own / "mine" / "lazily.py")  # whoever opens it would wait
    run = begun(tmp_path / "run", config())
    record_start(config(), run)
    modules = {module["name"]: module for module in read_starts(run)[0]["modules"]}
    assert "more than" in modules["mine.near"]["why_not"]
    assert "mine.lazily" not in modules, "nor does Python take that for a module"
    assert modules["mine.near"]["file"] is modules["mine.near"]["sha256"] is None
    assert sorted(copies(run)) == ["modules/losses_of_mine.py", "modules/mine/__init__.py"]


def test_a_run_that_goes_on_adds_a_start_and_keeps_what_it_was_started_with(own: Path, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", config())
    assert record_start(config(), run) == []
    first = copies(run)
    assert first["modules/losses_of_mine.py"] == LOSS
    assert record_start(config(), run, 4) == []
    assert copies(run) == first, "nothing has changed, so nothing is copied again"
    (own / "mine" / "near.py").write_text("changed = True\n")
    (said,) = record_start(config(), run, 8, hosts=["b", "c", "b"])
    assert said.startswith("'mine.near': not what the run was started with")
    assert copies(run) == first | {"modules/start_3/mine/near.py": "changed = True\n"}
    starts = read_starts(run)
    assert [start["step"] for start in starts] == [0, 4, 8]
    files = [[module["file"] for module in start["modules"] if module["name"] == "mine.near"] for start in starts]
    assert files == [["modules/mine/near.py"]] * 2 + [["modules/start_3/mine/near.py"]]
    assert starts[2]["hosts"] == [starts[2]["host"], "b", "c"]
    assert {"python", "torch", "onward"} <= starts[0]["versions"].keys()
    begin_run(config(), run.path)
    assert not run.provenance.exists(), "a new run in its place came from elsewhere"
    assert not run.modules.exists()


def test_a_damaged_record_stops_no_run(own: Path, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", config())
    for damaged in ("", "[1]", '{"starts": 3}', '{"starts": [1, {"modules": {"a": 1}}]}'):
        run.provenance.write_text(damaged)
        record_start(config(), run, 4)
        assert [start["step"] for start in read_starts(run) if "step" in start] == [4], damaged


@pytest.mark.usefixtures("own")
def test_nothing_secret_of_the_command_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3t"
    words = [f"trackers=[{{kind: 'a:B', options: {{project: {secret}}}}}]", f"trackers.0.options.project={secret}",
             f"model.options={{api_key: {secret}}}", f"objective.options.auth_token={secret}",
             f"data.root=https://me:{secret}@host/x"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["/somewhere/onward", "train", "seed=3", "trackers=[tensorboard]", *words])
    run = begun(tmp_path / "run", config())
    record_start(config(), run)
    (start,) = read_starts(run)
    assert secret not in json.dumps(start)
    assert start["command"][:4] == ["onward", "train", "seed=3", "trackers=[tensorboard]"]
    assert start["command"][4] == f"trackers={HIDDEN}"
    assert start["command"][-1] == f"data.root=https://{HIDDEN}@host/x"


def git(folder: Path, *words: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    ended = subprocess.run(
        ["git", *who, "-C", str(folder), *words], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@pytest.mark.processes
def test_the_commit_is_that_of_the_folder_and_says_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "below").mkdir(parents=True)
    (tmp_path / "a" / "x.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        git(tmp_path / "a", *words)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("GIT_DIR")
    commit = git(tmp_path / "a", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as a hook of git has it, which starts a run
    folders = {"working directory": tmp_path / "a" / "below", "losses": tmp_path / "a", "none": tmp_path}
    (found,) = git_commits(folders)
    assert (found.commit, found.changed, found.holds) == (commit, False, ("working directory", "losses"))
    assert Path(found.repository).samefile(tmp_path / "a")
    (tmp_path / "a" / "x.py").write_text("2\n")
    (found,) = git_commits(folders)
    assert (found.commit, found.changed) == (commit, True)


@pytest.mark.processes
@pytest.mark.parametrize(
    "does", ["exec sleep 600", "sleep 600 & exec sleep 600", "exit 3", "echo nothing of use", None]
)
def test_a_git_that_hangs_fails_or_is_missing_does_not_matter(
    does: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if does is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if does else str(tmp_path))
    assert git_commits({"working directory": tmp_path}, seconds=0.2) == []


def test_a_command_that_starts_a_run_or_goes_on_with_it_leaves_a_record(
    folder: Path, onward: Callable[..., Any], fake_training: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["onward", "train", "config.yaml", "run_dir=run"])
    for count in (1, 2):
        assert onward("train", "config.yaml", "run_dir=run").code == 0
        starts = read_starts(RunDir(folder / "run"))
        assert [start["command"][1:] for start in starts] == [["train", "config.yaml", "run_dir=run"]] * count
    assert len(fake_training) == 2
    assert onward("check", "config.yaml", "run_dir=run").code == 0
    assert len(read_starts(RunDir(folder / "run"))) == 2, "a check starts nothing"
    given = load_config("config.yaml", ["run_dir=several"])
    with prepare_run(given, "x", lambda config, placements, resumed: (config, []), (), False, ("b", "c")) as prepared:
        (start,) = read_starts(prepared.run)
    assert start["hosts"][1:] == ["b", "c"]
