"""A run that somebody hands over: reading it runs nothing, follows no link, waits for nobody and fills no memory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from launch.pages.page import page
from launch.pages.run_record import read_run
from launch.prepare.run_dir import read_config
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import make_folder, open_to_read, open_to_write, read_whole
from pipeline.validation.loading import LoadOptions, load_config, parse_config
from tests.launch.commands.evaluations import full, write_run
from tests.launch.pages.reported import line
from tests.strangers import NOBODY, needs_root
from workers.run.files import RunDir, write_parts
from workers.run.tensor_files import save_tensors

KEY = "ssh-of-the-owner"


def hostile(folder: Path, mark: Path) -> Path:
    """A run that was evaluated, and whose network is a function of the system that makes a folder."""
    run = write_run(folder, full(2, run=str(folder)))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"backbone": "os:mkdir", "options": {"path": str(mark)}, "output": "a", "cuts": ["b"]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line(step, stages=2)) + "\n" for step in range(3)))
    (run / "final").mkdir()
    save_tensors(RunDir(run).backbone, {"conv1.weight": torch.ones(2, 3)})
    return run


@pytest.mark.usefixtures("page_alone", "one_figure")
@pytest.mark.parametrize(
    "command",
    [
        lambda run, other: ("export", run, f"{other}.safetensors"),
        lambda run, other: ("report", run, "--to", f"{other}.html"),
        lambda run, other: ("compare", run, other),
        lambda run, other: ("select", run, other),
    ],
    ids=["export", "report", "compare", "select"],
)
def test_reading_a_run_runs_nothing_of_it(
    command: Callable[[str, str], tuple[str, ...]], tmp_path: Path, onward: Callable[..., Any]
) -> None:
    mark = tmp_path / "was here"
    run, other = hostile(tmp_path / "run", mark), write_run(tmp_path / "other", full(2))
    outcome = onward(*command(str(run), str(other)))
    assert (outcome.code, outcome.err) == (0, "")
    assert not mark.exists()
    with pytest.raises(
        ConfigError, match=r"FileExistsError|of type NoneType"
    ):  # where a network is built, it does what it says
        load_config(run / "config.yaml")
    assert mark.exists()


def test_the_data_of_a_configuration_are_packed_without_its_network(
    tmp_path: Path, onward: Callable[..., Any], make_image_folder: Callable[..., Path]
) -> None:
    mark, images = tmp_path / "was here", make_image_folder(tmp_path / "images", per_class=2, classes=2)
    config = hostile(tmp_path / "run", mark) / "config.yaml"
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**values, "data": {"name": "image_folder", "root": str(images)}}))
    assert onward("data", "pack", str(config), str(tmp_path / "packed")).code == 0
    assert not mark.exists()


@needs_root
@pytest.mark.parametrize("command", ["evaluate", "check", "resume"])
def test_a_strangers_run_calls_functions_only_where_it_is_trusted(
    command: str, tmp_path: Path, onward: Callable[..., Any]
) -> None:
    mark = tmp_path / "was here"
    run = hostile(tmp_path / "run", mark)
    (run / "final" / "backbone.safetensors").unlink()
    os.chown(run / "config.yaml", NOBODY, NOBODY)
    given = str(run / "config.yaml" if command == "check" else run)
    outcome = onward(command, given)
    assert outcome.code == 2
    assert "belongs to user" in outcome.err
    assert "'os:mkdir' (model.backbone): it calls any function with any arguments, as you" in outcome.err
    assert "--trust" in outcome.err
    assert not mark.exists()
    onward(command, given, "--trust")  # which ends in an error of its own: a folder is no network
    assert mark.exists()


@needs_root
def test_a_strangers_run_that_names_nothing_needs_no_trust(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None)
    os.chown(run / "config.yaml", NOBODY, NOBODY)
    load_config(run / "config.yaml", (), LoadOptions(trusted=False, run=run))


@needs_root
def test_who_gave_the_command_by_sudo_is_trusted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "was here"
    config = hostile(tmp_path / "run", mark) / "config.yaml"
    os.chown(config, NOBODY, NOBODY)
    for user, built in (("1000", False), ("x", False), (str(NOBODY), True)):
        monkeypatch.setenv("SUDO_UID", user)
        with pytest.raises(ConfigError if built else UserError):
            load_config(config, (), LoadOptions(trusted=False))
        assert mark.exists() is built


@needs_root
def test_trackers_are_trusted_only_where_they_would_be_started(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, "trackers=[{kind: 'subprocess:Popen', options: {args: 'true'}}]")
    os.chown(run / "config.yaml", NOBODY, NOBODY)
    load_config(run / "config.yaml", (), LoadOptions(trusted=False, run=run))
    with pytest.raises(UserError, match=r"names 'subprocess:Popen' \(trackers\.0\.kind\)"):
        load_config(run / "config.yaml", (), LoadOptions(trusted=False, trackers=True, run=run))


@pytest.mark.parametrize(
    "place",
    ["logs/coordinator.log", "final/stage_1.safetensors", "trace/coordinator.1.jsonl", ".replay/a/step_1.safetensors",
     "evaluation/results.csv", "evaluation/features/ab/features.json", "report/loss.png", "tensorboard/events",
     "snapshots/step_2", ".faults/0"],
)  # fmt: skip
def test_a_link_in_any_folder_of_a_run_is_refused(place: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None)
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (run / place).parent.mkdir(parents=True)
    (run / place).symlink_to(outside)
    with pytest.raises(UserError, match=f"{place}' is a symbolic link: a run holds its own files only"):
        read_config(run)
    (run / place).unlink()
    os.mkfifo(run / place)
    with pytest.raises(UserError, match=f"{place}' is neither a file nor a folder"):
        read_config(run)
    (run / place).unlink()
    read_config(run)


def test_folders_that_a_tracker_made_are_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None)
    (run / "wandb").mkdir()
    (run / "wandb" / "latest-run").symlink_to("run-1")
    read_config(run)


def test_a_link_that_comes_later_is_not_followed_either(tmp_path: Path) -> None:
    run, outside = RunDir(tmp_path / "run"), tmp_path / "outside"
    for folder in (run.path, run.logs, outside):
        folder.mkdir()
    (outside / "coordinator.log").write_text(KEY)
    run.log("coordinator").symlink_to(outside / "coordinator.log")
    for attack in (
        lambda: open_to_write(run.log("coordinator"), run.path),
        lambda: open_to_write(run.log("coordinator")),
        lambda: open_to_read(run.log("coordinator"), run.path),
    ):
        with pytest.raises(OSError, match="symbolic link"):
            attack()
    run.final.symlink_to(outside)
    for attack in (
        lambda: open_to_write(run.final / "coordinator.log", run.path),
        lambda: open_to_read(run.final / "coordinator.log", run.path),
        lambda: make_folder(run.final / "more", run.path),
        lambda: save_tensors(run.backbone, {"a": torch.ones(1)}, root=run.path),
    ):
        with pytest.raises(OSError, match="symbolic link"):
            attack()
    assert (outside / "coordinator.log").read_text() == KEY
    assert os.listdir(outside) == ["coordinator.log"]


def test_a_link_in_the_place_of_a_temporary_file_is_replaced(tmp_path: Path) -> None:
    outside, path = tmp_path / "outside", tmp_path / "report.json"
    outside.write_text(KEY)
    (tmp_path / f".report.json.{os.getpid()}.tmp").symlink_to(outside)
    path.symlink_to(outside)
    write_parts(path, (b"{}",))
    assert outside.read_text() == KEY
    assert not path.is_symlink()
    assert path.read_bytes() == b"{}"


def test_a_file_of_another_kind_or_without_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(bytes(11))
    for name, words in (("pipe", "no ordinary file"), ("zero", "no ordinary file"), ("large", "more than 10 bytes")):
        with pytest.raises(OSError, match=words):
            read_whole(tmp_path / name, 10)
    with pytest.raises(OSError, match="no ordinary file"):
        open_to_write(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (lambda file: file.write_bytes(b""), "is damaged"),
        (lambda file: file.write_bytes(b"root:x:0:0"), "is damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-4]), "is damaged"),
        (lambda file: save_tensors(file, {}), "it holds no tensor"),
        (lambda file: (file.unlink(), file.symlink_to("/etc/passwd")), "is a symbolic link"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is neither a file nor a folder"),
        (lambda file: os.truncate(file, 1 << 43), "of memory are available"),
    ],
    ids=["empty", "text", "cut", "nothing in it", "link", "pipe", "larger than memory"],
)
def test_export_gives_tensors_or_nothing(
    attack: Callable[[Path], Any], words: str, tmp_path: Path, onward: Callable[..., Any]
) -> None:
    run = write_run(tmp_path / "run", None)
    RunDir(run).final.mkdir()
    save_tensors(RunDir(run).backbone, {"conv1.weight": torch.ones(2, 3)})
    attack(RunDir(run).backbone)
    outcome = onward("export", str(run), str(tmp_path / "b.safetensors"))
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.usefixtures("page_alone", "one_figure")
def test_a_failure_that_is_none_is_left_out_of_the_report(tmp_path: Path, onward: Callable[..., Any]) -> None:
    run = write_run(tmp_path / "run", None)
    (run / "metrics.jsonl").write_text(json.dumps(line(0)) + "\n")
    for text in ("[1]", "7", "{}", '{"kind": 7, "message": [], "exit_code": "x"}', "[" * 100_000):
        (run / "failure.json").write_text(text)
        assert "It ended without a message" in page(read_run(run), []), text
    outcome = onward("report", str(run))
    assert (outcome.code, outcome.err) == (0, "")
    assert "It ended without a message" in (run / "report.html").read_text()


SECRETS: dict[str, Any] = {
    "trackers": [{"kind": "my_trackers:Sheet", "options": {"project": "birds", "deep": [{"api_key": KEY}]}}],
    "model": {"backbone": "resnet18", "cuts": []},
}


@pytest.mark.usefixtures("page_alone", "one_figure")
def test_a_trackers_key_is_in_its_file_alone_and_that_is_the_users(tmp_path: Path, onward: Callable[..., Any]) -> None:
    from launch.prepare.run_dir import begin_run

    run = tmp_path / "run"
    run.mkdir()
    begin_run(parse_config(SECRETS), run)
    assert KEY in (run / "config.yaml").read_text()
    assert stat.S_IMODE((run / "config.yaml").stat().st_mode) == 0o600
    (run / "metrics.jsonl").write_text(json.dumps(line(0)) + "\n")
    assert onward("report", str(run)).code == 0
    page = (run / "report.html").read_text()
    assert KEY not in page
    assert "my_trackers:Sheet" in page
    assert "(not shown)" in page


def test_a_configuration_without_secrets_is_as_readable_as_the_user_wants(tmp_path: Path) -> None:
    from launch.prepare.run_dir import begin_run

    before = os.umask(0o022)
    try:
        begin_run(parse_config({"trackers": ["tensorboard"]}), tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o644
