"""Every command of the command line, on every output that cannot take everything: none ends in a traceback.

The commands are taken from the program itself: a new one fails here until it is told how it is called.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from launch.cli import app
from pipeline.validation.loading import dump_config
from tests.runs import LIMIT, session_server
from tests.workers.evaluating.evaluating_runs import image_folder, small_config
from workers.run.files import RunDir

pytestmark = pytest.mark.processes

QUICK = ("runtime=serial", "train.max_steps=1", "train.epochs=2", "optimizer.warmup_epochs=0")
FULL = "error: not all could be written to the standard output (No space left on device)\n"


@dataclass(frozen=True)
class Command:
    """How a command is called.

    Args:
        arguments: what follows its name; `{at}` is the place, `{own}` a path of this call alone.
        product: what it leaves behind, whoever listens.
        copied: a folder of the place, of which there is a copy at `{own}`.
        matters: whether what it says is what it is for, so that a full disk is a failure.
        first: the output that `make test` tries.
        judges: its exit code may also be 1, by what it finds on this machine.
    """

    arguments: tuple[str, ...]
    product: str = ""
    copied: str = ""
    matters: bool = True
    first: str = "full"
    judges: bool = False


COMMANDS = {
    "--help": Command((), first="ascii"),
    "--version": Command((), first="closed"),
    "train": Command(("{at}/config.yaml", "run_dir={own}", *QUICK), "{own}/report.json", matters=False, first="ascii"),
    "resume": Command(("{own}",), "{own}/report.json", "begun", matters=False, first="closed"),
    "check": Command(("{at}/config.yaml", "--all")),
    "evaluate": Command(("{own}",), "{own}/evaluation.json", "run", first="ascii"),
    "export": Command(("{at}/run", "{own}.safetensors"), "{own}.safetensors"),
    "convert": Command(("{at}/run", "{own}.safetensors"), "{own}.safetensors"),
    "report": Command(("{own}",), "{own}/report.html", "run"),
    "compare": Command(("{at}/run", "{at}/other", "--csv", "{own}.csv"), "{own}.csv", first="ascii"),
    "plan": Command(("{at}/config.yaml", "--gpus", "2", "--write", "{own}.yaml"), "{own}.yaml", first="ascii"),
    "verify": Command(("{at}/run",), first="closed"),
    "replay": Command(("{at}/run", "--stage", "1", "--step", "0", "--dump", "{own}"), "{own}/step.json", first="ascii"),
    "bisect": Command(("{at}/run", "{at}/run"), first="closed"),
    "runs": Command(("{at}", "--csv", "{own}.csv"), "{own}.csv", first="closed"),
    "targets": Command(("{at}", "{own}.json", "--once"), "{own}.json"),
    "select": Command(("{at}/run", "{at}/other", "--csv", "{own}.csv"), "{own}.csv", first="closed"),
    "bench method": Command(("{at}/config.yaml", "--seeds", "1", "--to", "{own}", *QUICK), "{own}/method.json"),
    "data pack": Command(("{at}/images", "{own}"), "{own}/manifest.json", first="closed"),
    "data verify": Command(("{at}/packed",)),
    "doctor": Command(("--run-dir", "{at}"), first="ascii", judges=True),
}


def names_of(command: Any, above: str = "") -> Iterator[str]:
    """Of all commands that can be called, as they are typed."""
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from names_of(below, f"{above}{name} ")
        else:
            yield above + name


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    code: int
    out: bytes
    err: str


def call(arguments: list[str], output: str = "kept") -> Ended:
    """A command whose standard output is `full`, `closed`, or a file (`kept`, or with signs of `ascii` only)."""
    environment = dict(os.environ) | ({"PYTHONIOENCODING": "ascii"} if output == "ascii" else {})
    with tempfile.TemporaryFile() as kept, tempfile.TemporaryFile() as errors, Path("/dev/full").open("wb") as full:
        reader, writer = os.pipe()
        os.close(reader)
        out = {"full": full.fileno(), "closed": writer}.get(output, kept.fileno())
        process = session_server().command(arguments, environment, out, errors.fileno())
        os.close(writer)
        try:
            code = process.wait(LIMIT)
        finally:
            process.kill()
        kept.seek(0)
        errors.seek(0)
        return Ended(code, kept.read(), errors.read().decode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name no ASCII terminal can write: images, a configuration, evaluated runs, one that has begun."""
    at = tmp_path_factory.mktemp("output") / "größe → ж"
    config = small_config(image_folder(at / "images"), quality={"samples": 6, "views": 2}, knn={"k": [3]}, plots=False)
    (at / "config.yaml").write_text(dump_config(config))
    run = RunDir(at / "run")
    assert call(["train", str(at / "config.yaml"), f"run_dir={run.path}", *QUICK]).code == 0
    begun = RunDir(Path(shutil.copytree(run.path, at / "begun")))
    shutil.rmtree(begun.final)
    begun.report.unlink()
    assert call(["evaluate", str(run.path)]).code == 0
    shutil.copytree(run.path, at / "other")
    assert call(["data", "pack", str(at / "images"), str(at / "packed")]).code == 0
    return at


OUTPUTS = ("full", "closed", "ascii")
LONG = ("bench method",)
"""Trains five runs, each of which says for itself that nobody hears it."""
OF_A_RUN = "not all that is said can be written to the standard output ("
CASES = [
    pytest.param(name, output, marks=() if output == command.first and name not in LONG else pytest.mark.slow)
    for name, command in COMMANDS.items()
    for output in OUTPUTS
]


def test_every_command_is_tried() -> None:
    assert set(names_of(typer.main.get_command(app))) | {"--help", "--version"} == set(COMMANDS)
    assert {command.first for command in COMMANDS.values()} == set(OUTPUTS)


@pytest.mark.parametrize(("name", "output"), CASES)
def test_no_output_ends_a_command_in_a_traceback(place: Path, name: str, output: str) -> None:
    command, own = COMMANDS[name], place / f"{name} {output}"
    if command.copied:
        shutil.copytree(place / command.copied, own)
        RunDir(own).path.joinpath("evaluation.json").unlink(missing_ok=True)
    ended = call([*name.split(), *(argument.format(at=place, own=own) for argument in command.arguments)], output)
    if command.matters:
        said = [
            line for line in ended.err.splitlines(keepends=True) if name not in LONG or not line.startswith(OF_A_RUN)
        ]
        code = 0 if command.judges and output != "full" and ended.code == 1 else ended.code
        assert ("".join(said), code) == ((FULL, 1) if output == "full" else ("", 0)), ended
    else:  # it says that it was not heard, and has done what it is for
        assert ended.err.count("\n") == (output != "ascii"), ended
        assert "Traceback" not in ended.err
        assert ended.code == 0
    if command.product:
        assert Path(command.product.format(own=own)).stat().st_size > 0, "whoever listens"
    if output == "ascii":
        assert ended.out.isascii()
        assert ended.out
