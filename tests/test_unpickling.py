"""Nothing in the packages reads what can carry code, or evaluates text, under whatever name it was imported.

With one exception: the process without rights that converts a file of `torch.save` loads plain tensors of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.sources import PACKAGES, REPOSITORY, assert_clean, name_of, tree_of

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all",
    "numpy.fromregex", "multiprocessing.Pipe", "multiprocessing.Queue", "multiprocessing.connection.Client",
    "multiprocessing.connection.Listener", "multiprocessing.managers.BaseManager",
    "torch.distributed.broadcast_object_list", "torch.distributed.all_gather_object",
    "torch.distributed.gather_object", "torch.distributed.scatter_object_list",
    "torch.distributed.send_object_list", "torch.distributed.recv_object_list",
}  # fmt: skip
IN_THE_PROCESS_WITHOUT_RIGHTS = "workers/weights/unpickling.py"
"""May call `torch.load` with `weights_only=True`, and `torch.save` for a rehearsal; `pickled.py` alone starts it."""
BUILT_IN = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full name of what `node` refers to, as far as the imports tell."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{dotted(node.value, names)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def imported(tree: ast.Module) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(tree: ast.Module) -> Iterator[str]:
    """What a source does that it must not, with the line."""
    names = imported(tree)
    safe = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
            and any(dotted(base, names) in ("yaml.SafeLoader", "yaml.CSafeLoader") for base in node.bases)}  # fmt: skip
    safe |= {"yaml.SafeLoader", "yaml.CSafeLoader"}
    connections = any(name.startswith("multiprocessing.connection") for name in names.values())
    for node in ast.walk(tree):
        found = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found = next((module for module in modules if module.split(".")[0] in MODULES), None)
        elif isinstance(node, ast.Attribute) and dotted(node, names) in CALLS:
            found = dotted(node, names)
        elif isinstance(node, ast.Name) and names.get(node.id) in CALLS:
            found = names[node.id]
        elif isinstance(node, ast.Call):
            name = dotted(node.func, names)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            loader = keywords.get("Loader", node.args[1] if len(node.args) > 1 else None)
            if name in BUILT_IN or (name == "yaml.load" and (loader is None or dotted(loader, names) not in safe)):
                found = name
            elif "allow_pickle" in keywords and getattr(keywords["allow_pickle"], "value", None) is not False:
                found = "allow_pickle"
            elif connections and isinstance(node.func, ast.Attribute) and node.func.attr in ("recv", "send"):
                owner = dotted(node.func.value, names).rpartition(".")[2]
                found = f"{owner}.{node.func.attr}" if owner.endswith("connection") else None
        if found:
            yield f"line {getattr(node, 'lineno', 0)}: {found}"


def unsafe_loads(tree: ast.Module) -> Iterator[str]:
    """Calls of `torch.load` that may build anything but tensors, of a torch under whatever name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            given = [keyword.value for keyword in node.keywords if keyword.arg == "weights_only"]
            if not (len(given) == 1 and isinstance(given[0], ast.Constant) and given[0].value is True):
                yield f"line {node.lineno}: load without weights_only=True"


def test_nothing_unpickles_or_evaluates() -> None:
    def found(path: Path) -> Iterator[str]:
        if name_of(path) != IN_THE_PROCESS_WITHOUT_RIGHTS:
            return violations(tree_of(path))
        others = (text for text in violations(tree_of(path)) if not text.endswith(("torch.load", "torch.save")))
        return chain(unsafe_loads(tree_of(path)), others)

    assert_clean(PACKAGES, found)


def test_the_process_without_rights_is_started_in_one_place() -> None:
    naming = [name_of(path) for path in PACKAGES if "workers.weights.unpickling" in path.read_text()]
    assert naming == ["workers/weights/pickled.py"]
    tree = tree_of(REPOSITORY / IN_THE_PROCESS_WITHOUT_RIGHTS)
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "load"]
    assert loads, "it unpickles nothing any more; take it off"


@pytest.mark.parametrize("source", ["torch.load(f)", "t.load(f, weights_only=False)", "t.load(f, weights_only=given)"])
def test_a_load_of_anything_is_found(source: str) -> None:
    assert list(unsafe_loads(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "def f():\n    from _pickle import loads",
        "import torch\ntorch.load(path)",
        "from torch import load as read\nread(path)",
        "import torch as t\nread = t.load",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=given)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nclass L(yaml.FullLoader): pass\nyaml.load(text, Loader=L)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "from multiprocessing.connection import Connection\nself._connection.recv()",
        "from multiprocessing.connection import Connection\nconnection.send(value)",
        "from multiprocessing import Pipe\nPipe()",
        "import torch.distributed as dist\ndist.all_gather_object(found, value)",
        "eval(text)",
        "exec(text)",
        "import marshal",
        "import shelve, dill",
    ],
)
def test_the_check_finds(source: str) -> None:
    assert list(violations(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nclass L(yaml.SafeLoader): pass\nyaml.load(text, Loader=L)",
        "import yaml\nyaml.safe_load(text)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "model.eval()",
        "from safetensors.torch import load\nload(data)",
        "from multiprocessing.connection import Connection\nconnection.recv_bytes(9)\nsender.send(header)",
        "import torch\ntorch.compile(model)",
        "import re\nre.compile(text)",
    ],
)
def test_the_check_leaves_alone(source: str) -> None:
    assert not list(violations(ast.parse(source)))
