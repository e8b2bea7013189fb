"""The command line beyond bad input: what it prints, what it starts, and how it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from launch.prepare.link_kind import with_link
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.run_dir import read_config
from pipeline.errors import StageFailure, UserError
from pipeline.validation.loading import load_config
from tests.runs import LIMIT
from workers.run.files import RunDir
from workers.run.tensor_files import save_tensors

CommandLine = Callable[..., Any]


def test_training_starts_in_a_directory_that_is_ready(
    folder: Path, onward: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run_training(prepared: PreparedRun) -> int:
        run = prepared.run
        seen.append((prepared.config, run.path, read_config(run.path), run.logs.is_dir()))
        return 0

    stand_in(monkeypatch, "launch.processes.local", run_training=run_training)
    outcome = onward("train", "config.yaml", "run_dir=out", "seed=5", "stages.2.noise.std=0.5")
    expected = load_config("config.yaml", ["run_dir=out", "seed=5", "stages.2.noise.std=0.5"])
    assert (outcome.code, outcome.err) == (0, "")
    expected = with_link(expected, on_one_host=True)
    written = expected.model_copy(update={"run_dir": str(folder / "out")})
    assert seen == [(expected, Path("out"), written, True)]


def test_a_run_is_named_after_its_configuration(folder: Path, onward: CommandLine, fake_training: list[Path]) -> None:
    assert [onward("train", "config.yaml").code for _ in range(2)] == [0, 0]
    assert len(set(fake_training)) == 2
    for run in fake_training:
        assert str(run).startswith("runs/config-2")
        assert read_config(run).run_dir == str(run.absolute())


def test_the_last_override_wins(folder: Path, onward: CommandLine, fake_training: list[Path]) -> None:
    onward("train", "config.yaml", "seed=1", "run_dir=out", "seed=2")
    assert read_config(Path("out")).seed == 2


@pytest.mark.parametrize(
    ("ending", "code", "message"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (130, 130, ""),
        (StageFailure("stage 2", 7, "it was\nkilled"), 1, "error: stage 2 failed at step 7: it was killed\n"),
        (UserError("the data went away"), 2, "error: the data went away\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(
    ending: int | BaseException,
    code: int,
    message: str,
    folder: Path,
    onward: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_training(_prepared: PreparedRun) -> int:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    stand_in(monkeypatch, "launch.processes.local", run_training=run_training)
    outcome = onward("train", "config.yaml")
    assert (outcome.code, outcome.err) == (code, message)


def test_evaluation_is_given_the_run(folder: Path, onward: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "launch.processes.local", run_training=lambda *_: 0)
    expected = (Path("out"), ["evaluation.mlp=true"])
    stand_in(
        monkeypatch, "launch.commands.evaluate", evaluate_run=lambda *given, trusted: 3 if given == expected else 4
    )
    onward("train", "config.yaml", "run_dir=out")
    assert onward("evaluate", "out", "evaluation.mlp=true").code == 3


def test_check_prints_a_configuration_that_train_reads(folder: Path, onward: CommandLine) -> None:
    outcome = onward("check", "config.yaml", "seed=4", "model.cuts=[layer1, layer2.0]")
    (folder / "resolved.yaml").write_text(outcome.out)
    assert load_config("resolved.yaml") == load_config("config.yaml", ["seed=4", "model.cuts=[layer1, layer2.0]"])


def test_check_prints_where_stages_go_and_what_crosses(folder: Path, onward: CommandLine) -> None:
    outcome = onward("check", "config.yaml", "model.cuts=[stem, layer2.0]", "train.max_steps=3")
    *told, note = outcome.out.splitlines()[-8:]
    assert note.startswith("# note: there will be no linear probes: ")
    assert told == [
        "# stage  device  units                 output [V, B, C, H, W]",
        "# 1      cpu     stem                  [2, 4, 8, 16, 16]",
        "# 2      cpu     layer1.0 to layer2.0  [2, 4, 16, 8, 8]",
        "# 3      cpu     layer2.1 to layer4.1  [2, 4, 64, 2, 2]",
        "# processes by rank (torchrun --nproc-per-node=3): 0: stage 1, 1: stage 2, 2: stage 3",
        "# 8 images of 2 classes",
        "# batches of 4: 2 steps an epoch, 3 in all",
    ]
    assert not (folder / "runs").exists()


@pytest.mark.processes
def test_checking_never_loads_torch(folder: Path, repository: Path) -> None:
    """Bad input must be answered at once; loading torch takes seconds. The second waits for no account of the run."""
    script = (
        "import sys; from launch.cli import main; from launch.plan import child\n"
        "for config in sys.argv[1:]:\n"
        " try: main(['check', config, 'device=auto'])\n"
        " except SystemExit as end: assert not end.code, end.code\n"
        " print('LOADED', sorted({'torch', 'torchvision'} & set(sys.modules)))\n"
        " child.SECONDS = 0.0"
    )
    command = [sys.executable, "-c", script, str(repository / "configs" / "quickstart.yaml"), "config.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert done.stdout.count("LOADED") == done.stdout.count("LOADED []\n") == 2, done.stdout
    first, second, _ = done.stdout.split("LOADED")
    assert "# memory of this host: " in first
    assert "# memory of this host: " not in second


def test_the_version(onward: CommandLine) -> None:
    outcome = onward("--version")
    assert (outcome.code, outcome.out) == (0, f"onward {version('onward')}\n")


def test_export_copies_the_backbone_once(
    folder: Path, onward: CommandLine, fake_training: list[Path], assert_refused: Callable[[Any, str], None]
) -> None:
    onward("train", "config.yaml", "run_dir=out")
    assert_refused(onward("export", "out", "b.safetensors"), r"'out' has no trained backbone .*Train it to the end")
    run = RunDir(Path("out"))
    run.final.mkdir()
    save_tensors(run.backbone, {"conv1.weight": torch.ones(2, 3)})
    assert onward("export", "out", "b.safetensors").code == 0
    assert torch.equal(load_file("b.safetensors")["conv1.weight"], torch.ones(2, 3))
    with safe_open("b.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["image_size"], metadata["mean"]) == ("16", "[0.485, 0.456, 0.406]")
    assert metadata["resize"].startswith("short side to 18, bilinear, then the centre")
    assert_refused(onward("export", "out", "b.pt"), r"'b\.pt' should end with \.safetensors.*Give b\.safetensors")
    assert_refused(onward("export", "out", "b.safetensors"), r"'b\.safetensors' already exists\. Give another")
    assert_refused(onward("export", "out", "no/b.safetensors"), r"cannot be written \(there is no folder 'no'\)")
    run.backbone.write_bytes(b"weights")
    assert_refused(onward("export", "out", "c.safetensors"), r"backbone\.safetensors' is damaged")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port(
    folder: Path,
    onward: CommandLine,
    fake_training: list[Path],
    taken_port: int,
    assert_refused: Callable[[Any, str], None],
) -> None:
    overrides = ("metrics.enabled=true", f"metrics.port={taken_port}")
    expected = rf"^metrics\.port: port {taken_port} of 127\.0\.0\.1 is taken\. Give metrics\.port=0"
    assert_refused(onward("train", "config.yaml", *overrides), expected)
    assert fake_training == []
    assert not (folder / "runs").exists()


def test_a_taken_port_does_not_matter_without_metrics(folder: Path, onward: CommandLine, taken_port: int) -> None:
    assert onward("check", "config.yaml", f"metrics.port={taken_port}").code == 0


def test_a_port_is_free_again_after_the_check(folder: Path, onward: CommandLine) -> None:
    with (
        socket.socket() as keeper
    ):  # bound, it keeps the port from other programs; one that does not listen is no taker
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        port = keeper.getsockname()[1]
        overrides = ("metrics.enabled=true", f"metrics.port={port}")
        assert [onward("check", "config.yaml", *overrides).code for _ in range(2)] == [0, 0]
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "config.yaml", "noise.std=-1"), r"^noise\.std: got -1\. "),
        (("check", "nowhere.yaml"), r"^configuration file 'nowhere\.yaml' does not exist"),
        (("evaluate", "nowhere"), r"^'nowhere' does not exist\. Give a folder that 'onward train' wrote"),
        (("export", "nowhere", "out.safetensors"), r"^'nowhere' does not exist"),
    ],
)
def test_bad_input_in_a_real_process(
    arguments: tuple[str, ...],
    expected: str,
    folder: Path,
    tree: Callable[[Path], object],
    onward_process: CommandLine,
    assert_refused: Callable[[Any, str], None],
) -> None:
    before = tree(folder)
    assert_refused(onward_process(*arguments, cwd=folder), expected)
    assert tree(folder) == before


def test_what_is_no_run_is_not_evaluated(
    folder: Path,
    tree: Callable[[Path], object],
    onward: CommandLine,
    assert_refused: Callable[[Any, str], None],
) -> None:
    before = tree(folder)
    assert_refused(onward("evaluate", "images"), r"^'images' is not a run directory")
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Usage: onward"),
        (("trian",), "No such command 'trian'"),
        (("train",), "Missing argument 'CONFIG'"),
        (("train", "config.yaml", "--epochs", "3"), "No such option: --epochs"),
    ],
)
def test_a_wrong_command_line(arguments: tuple[str, ...], expected: str, onward: CommandLine) -> None:
    outcome = onward(*arguments)
    assert outcome.code == 2
    assert expected in outcome.out + outcome.err


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Callable[..., object]) -> None:
    """Put a module with `functions` where the command line will import it from."""
    fake = ModuleType(module)
    fake.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, module, fake)
