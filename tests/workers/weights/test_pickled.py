"""A file of `torch.save` is read by a process without rights, and only plain tensors come out of it."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from tests.runs import ROOT
from workers.run.tensor_files import tensors_in, tensors_of
from workers.weights import unpickling
from workers.weights.pickled import converted
from workers.weights.unpickling import _check_archive, _convert, _RefusedError


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)  # noqa: TID251
    return path


@pytest.mark.processes
def test_weights_beside_an_epoch_are_read_to_the_bit(tmp_path: Path) -> None:
    weights = OrderedDict({"module.conv1.weight": torch.randn(4, 3, 2), "n": torch.tensor(7)})
    path = saved(tmp_path / "a.pth", {"epoch": 3, "optimizer": {"state": {}}, "state_dict": {"model": weights}})
    with converted(path) as (file, about), tensors_in(file, path) as found:
        read = tensors_of(found)
    assert about.nested == "state_dict.model"
    assert about.beside == ["epoch (int)", "optimizer (dict)"]
    assert "no further file or socket" in about.isolation
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())
    assert read.keys() == weights.keys()


@pytest.mark.processes
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    by_torch = saved(tmp_path / "zip.pth", {"a": torch.zeros(1), "b": Evil(mark)})
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    for path in (by_torch, plain):
        with (
            pytest.raises(UserError, match=rf"'{path}' was refused: .*system.*Save the weights alone"),
            converted(path),
        ):
            pass
    assert not mark.exists()


@pytest.mark.processes
def test_the_process_has_no_way_out() -> None:
    """Should `weights_only` have a fault, what it lets run finds nothing that it could reach."""
    program = """
import ctypes, json, os, socket, subprocess, sys
from workers.weights.rights import give_up_rights, leave_network
took = leave_network()
networks = os.listdir("/sys/class/net") if "network" in str(took) else []
tries = {
    "read": lambda: open("/etc/hostname"), "write": lambda: open("/tmp/x", "w"), "os.open": lambda: os.open("/", 0),
    "socket": lambda: socket.socket(), "program": lambda: subprocess.Popen(["true"]),
    "system": lambda: os.system("true"), "fork": lambda: os.fork(), "exec": lambda: os.execv("/bin/true", ["true"]),
    "library": lambda: ctypes.CDLL(None), "import": lambda: __import__("wave"),
    "memory": lambda: bytearray(1 << 33), "remove": lambda: os.remove("/tmp/nothing"),
}
os.write(1, b"")
took += give_up_rights(1 << 20, 1 << 28)
answers = {}
for name, attempt in tries.items():
    try:
        attempt()
        answers[name] = "done"
    except BaseException as error:
        answers[name] = type(error).__name__
os.write(1, json.dumps([took, answers]).encode())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=120)
    took, answers = json.loads(done.stdout)
    assert took[-2:] == ["no further file or socket", "bounded memory, output and time"], done.stderr
    assert answers.pop("memory") == "MemoryError"
    assert set(answers.values()) <= {"PermissionError", "OSError", "BlockingIOError"}, answers


@pytest.mark.processes
def test_one_that_unpacks_to_more_than_it_is_was_made_to(tmp_path: Path) -> None:
    plain, bomb = saved(tmp_path / "plain.pth", {"a": torch.zeros(10)}), tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as there, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in there.namelist():
            packed.writestr(name, bytes(1 << 26) if name.endswith("data/0") else there.read(name))
    with pytest.raises(UserError, match=r"bomb\.pth' was refused: its entry '.*' is compressed"), converted(bomb):
        pass


def test_only_plain_tensors_come_out() -> None:
    offenders = {
        "'a' is a str, not a tensor": {"a": "text"},
        "'a' is a dict, not a tensor, under none of": {"a": {"b": torch.zeros(1)}},
        "'a' is no plain tensor (Tensor, torch.sparse_coo": {"a": torch.eye(2).to_sparse()},
        "'a' has no numbers (device meta)": {"a": torch.empty(2, device="meta")},
        "'a' is [1000000], and the file has fewer numbers than that": {"a": torch.zeros(1).expand(1_000_000)},
        "they overlap": dict.fromkeys("abcdefg", torch.zeros(1 << 20)),
        "it holds a list, not a dictionary of tensors": [torch.zeros(1)],
        "it holds no tensor": {},
    }
    for problem, value in offenders.items():
        memory = io.BytesIO()
        torch.save(value, memory)  # noqa: TID251
        memory.seek(0)
        with pytest.raises(_RefusedError) as caught:
            _convert(torch, memory, os.open(os.devnull, os.O_WRONLY), len(memory.getbuffer()))
        assert problem in str(caught.value)


def test_an_archive_of_torch_save_is_not_compressed() -> None:
    memory = io.BytesIO()
    torch.save({"a": torch.zeros(100)}, memory)  # noqa: TID251
    _check_archive(memory)
    assert memory.tell() == 0


def test_a_key_for_weights_is_looked_for_three_deep_only() -> None:
    deep: Any = {"a": torch.zeros(1)}
    for _ in range(unpickling.DEPTH + 1):
        deep = {"model": deep}
    found, _, _ = unpickling._state_dict(torch, deep)
    with pytest.raises(_RefusedError, match="'model' is a dict"):
        unpickling._plain(torch, "model", found["model"])


def test_what_is_no_weights_file_is_named(tmp_path: Path) -> None:
    from workers.weights.sources import Source

    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for name, problem in (
        (str(text), "is neither a safetensors file nor one of torch.save"),
        (str(tmp_path), "is a folder, and neither a run nor one with a model.safetensors"),
        (str(tmp_path / "no"), "does not exist"),
        (f"{tmp_path}@3", "is a folder, and neither a run"),
    ):
        with pytest.raises(UserError, match=problem):
            Source.of(name)
