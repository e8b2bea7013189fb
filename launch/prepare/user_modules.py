"""The source files of the modules that a configuration names, and of those that they import: the user's own code.

Files are found as Python would find them, without importing anything. What lies in the standard library, among
installed packages or in Onward itself is not the user's.
"""

from __future__ import annotations

import ast
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.config import Config
from pipeline.ordinary_files import read_whole
from pipeline.validation.trust import named_functions
from workers.run.environment import PACKAGES_FOLDER

MAX_FILE = 1 << 20
"""Bytes of the largest source file that is copied."""
MAX_TOTAL = 8 << 20
"""Bytes of all copies together."""
MAX_FILES = 200
INSTALLED = {"site-packages", "dist-packages"}
OWN_PACKAGES = tuple(Path(PACKAGES_FOLDER) / name for name in ("pipeline", "workers", "launch"))


@dataclass(frozen=True)
class UserModule:
    """One module of the user's.

    Args:
        name: dotted.
        source: its file.
        data: the content of the file; empty if it is not to be copied.
        why_not: why it is not copied; empty if it is.
    """

    name: str
    source: Path
    data: bytes = b""
    why_not: str = ""

    @property
    def place(self) -> str:
        """Where its copy lies below a folder of copies, so that Python finds it there."""
        parts = self.name.replace(".", "/")
        return f"{parts}/__init__.py" if self.source.name == "__init__.py" else f"{parts}.py"


def named_modules(config: Config) -> list[str]:
    """The modules that a configuration names as `PACKAGE.MODULE:NAME`, each once, in its order."""
    return list(dict.fromkeys(name.partition(":")[0] for name in named_functions(config).values()))


def user_modules(config: Config) -> list[UserModule]:
    """The user's own modules of a run, those that the configuration names first; empty for most runs."""
    waiting = named_modules(config)
    if not waiting:
        return []
    importlib.invalidate_caches()
    seen: set[str] = set()
    found: list[UserModule] = []
    room = MAX_TOTAL
    for wanted in waiting:
        for name, path in _files_of(wanted):
            if name in seen or len(found) >= MAX_FILES:
                continue
            seen.add(name)
            if path.suffix != ".py" or not _is_users(path):
                break  # and so is what lies in it
            module = _read(name, path, room)
            room -= len(module.data)
            found.append(module)
            waiting += [other for other in _imports(module) if other not in seen]
    return found


def _files_of(module: str) -> Iterator[tuple[str, Path]]:
    """Names and files of a module and of the packages above it, from the outermost; ends where there is none."""
    search: list[str] | None = [*sys.path, str(Path.cwd())]
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        loaded = sys.modules.get(name)  # an installer's own finders may have found it
        file, inside = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
        if file is None and inside is None:
            try:
                spec = PathFinder.find_spec(name, search)
            except (ImportError, ValueError, OSError):
                return
            if spec is None:
                return
            file, inside = spec.origin if spec.has_location else None, spec.submodule_search_locations
        if file is not None:
            yield name, Path(file)
        if inside is None:
            return
        search = list(inside)


def _is_users(path: Path) -> bool:
    real = path.resolve()
    library = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")]
    if INSTALLED & set(real.parts) or INSTALLED & set(path.parts):
        return False
    return not any(real.is_relative_to(folder) for folder in (*library, *(own.resolve() for own in OWN_PACKAGES)))


def _read(name: str, path: Path, room: int) -> UserModule:
    try:
        data = read_whole(path, MAX_FILE)
    except OSError as error:
        return UserModule(name, path, why_not=error.strerror or str(error))
    if len(data) > room:
        return UserModule(name, path, why_not=f"all copies together would have more than {MAX_TOTAL} bytes")
    return UserModule(name, path, data)


def _imports(module: UserModule) -> Iterator[str]:
    """Names of modules that a source may import, wherever in it; some are names in a module."""
    try:
        tree = ast.parse(module.data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    package = module.name if module.source.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
