"""Imports go one way, launch -> workers -> pipeline, and what moves bytes between processes stays where it belongs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import PACKAGES, REPOSITORY, assert_clean, name_of, tree_of

MAY_IMPORT = {
    "pipeline": {"pipeline"},
    "workers": {"pipeline", "workers"},
    "launch": {"pipeline", "workers", "launch"},
    "onward": {"pipeline", "workers", "launch", "onward"},
}
COMMAND_LINE = "launch/cli.py"
"""Lies above `onward`, which it calls; in `launch` because that is how it is started."""
TRANSPORT = ("torch.distributed", "torch.multiprocessing", "multiprocessing", "socket")
MAY_USE_TRANSPORT = {
    "workers/links/": "links and the control channel carry data between processes",
    "workers/control/": "the control channel, beside the links",
    "workers/topology/joining.py": "joins the process group that torchrun describes",
    "workers/topology/network.py": "finds by which address other hosts reach this one",
    "workers/topology/replica_group.py": "joins the replicas of a stage",
    "pipeline/replicas/": "collectives of a group that it is given",
    "pipeline/engines/deepspeed_engine.py": "hands DeepSpeed the group that it is given",
    "launch/processes/fork_server.py": "takes orders for processes from the one that started it",
    "launch/processes/fork_client.py": "the other end of that",
    "workers/observing/live/server.py": "finds the address to listen on",
    "workers/observing/live/page_server.py": "listens for browsers and Prometheus",
    "workers/observing/live/connection_limits.py": "closes the connection that is slowest to send its request",
    "launch/prepare/ports.py": "binds ports to see that they are free, and asks for addresses; carries nothing",
    "launch/doctor/peer.py": "two hosts compare themselves; carries nothing of a run",
}


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """Every module that a source imports, wherever it stands, as a full dotted name.

    Attributes of torch count (`torch.distributed.x` needs no import of its own), and so do names given
    to `import_module`. `module` resolves relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            parent = ".".join(part for part in (base, node.module) if part)
            yield from (".".join(filter(None, (parent, alias.name))) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            yield f"torch.{node.attr}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                yield str(node.args[0].value)


def package_of(path: Path) -> str:
    """By which rule a file imports."""
    return "onward" if name_of(path) == COMMAND_LINE else name_of(path).split("/")[0]


def against_the_direction(package: str, imported: str) -> bool:
    root = imported.split(".")[0]
    return root in MAY_IMPORT and root not in MAY_IMPORT[package]


def is_transport(imported: str) -> bool:
    return any(imported == name or imported.startswith(name + ".") for name in TRANSPORT)


def imports_of(path: Path) -> Iterator[str]:
    return imports(tree_of(path), name_of(path).removesuffix(".py").replace("/", "."))


def test_imports_go_one_way() -> None:
    def backward(path: Path) -> Iterator[str]:
        for found in imports_of(path):
            if against_the_direction(package_of(path), found):
                yield f"imports {found}: onward -> launch -> workers -> pipeline, never the other way"

    assert_clean(PACKAGES, backward)


def test_the_command_line_calls_the_python_interface() -> None:
    """What `onward` offers is what the commands do: they import it, and none of the files behind it."""
    found = set(imports_of(REPOSITORY / COMMAND_LINE))
    behind = {"check", "compare", "select", "evaluate"}
    assert {f"launch.commands.{name}" for name in behind}.isdisjoint({".".join(name.split(".")[:3]) for name in found})
    assert not any(name.startswith(("launch.processes", "launch.prepare.prepared_run")) for name in found)
    called = {
        ast.unparse(node.func) for node in ast.walk(tree_of(REPOSITORY / COMMAND_LINE)) if isinstance(node, ast.Call)
    }
    assert {"onward.check", "onward.compare", "onward.select", "here.train", "here.resume", "here.evaluate"} <= called
    child = tree_of(REPOSITORY / "onward" / "command_process.py")
    assert {"here.train", "here.resume", "here.evaluate"} <= {
        ast.unparse(node.func) for node in ast.walk(child) if isinstance(node, ast.Call)
    }
    below = [path for path in PACKAGES if name_of(path) != "onward/__main__.py" and package_of(path) == "onward"]
    assert [name_of(path) for path in below if any(name.startswith("launch.cli") for name in imports_of(path))] == []


def test_transport_stays_in_its_place() -> None:
    def transport(path: Path) -> Iterator[str]:
        if not name_of(path).startswith(tuple(MAY_USE_TRANSPORT)):
            for found in filter(is_transport, imports_of(path)):
                yield f"uses {found}; only these may: {', '.join(MAY_USE_TRANSPORT)}"

    assert_clean(PACKAGES, transport)


def test_every_exception_is_still_needed() -> None:
    for place in MAY_USE_TRANSPORT:
        found = [path for path in PACKAGES if name_of(path).startswith(place)]
        used = [path for path in found if any(map(is_transport, imports_of(path)))]
        assert used, f"{place} uses no transport any more; take it off the list"


@pytest.mark.parametrize(
    ("source", "direction", "transport"),
    [
        ("import launch.cli", True, False),
        ("def f():\n    from launch import cli", True, False),
        ("from .. import launch", True, False),
        ("import importlib\nimportlib.import_module('launch.cli')", True, False),
        ("from pipeline.config import Config", False, False),
        ("import socket as s", False, True),
        ("from torch import distributed", False, True),
        ("import torch.distributed as dist", False, True),
        ("import torch\ntorch.distributed.init_process_group()", False, True),
        ("from torch.distributed.rpc import rpc_sync", False, True),
        ("from multiprocessing import shared_memory", False, True),
        ("__import__('socket')", False, True),
        ("import torch\ntorch.nn.Linear\nimport socketserver_like", False, False),
    ],
)
def test_the_check_itself(source: str, direction: bool, transport: bool) -> None:
    found = list(imports(ast.parse(source), "workers.x"))
    assert any(against_the_direction("workers", name) for name in found) == direction
    assert any(is_transport(name) for name in found) == transport
