"""Whether `launch`, `pipeline` and `workers` are Onward's: their names are common, and a folder's may come first.

Looked at by the first import, which then says whose they are instead of failing anywhere with a name that is missing.
Nothing is imported for it: only where Python would find the packages, and the lists of installed files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("launch", "pipeline", "workers")
DISTRIBUTION = "onward"
REMEDY = "Install Onward into an environment of its own (python -m venv FOLDER), or uninstall the other"


def check_owners(home: Path | None = None, path: Sequence[str] | None = None) -> None:
    """Check that the three packages are those beside this one, and that nobody else has installed files into them.

    Args:
        home: the folder of this package and the three; that of this file if not given.
        path: where Python looks for them; `sys.path` and what else finds modules if not given.

    Raises:
        ImportError: naming the package, where it is found, the distribution that owns it, and what to do.
    """
    home = home or Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = _place_of(name, path)
        if found is None:
            raise ImportError(
                f"Onward's package '{name}' is not installed beside '{home / 'onward'}'. Install it again"
            )
        if found.resolve() != home / name:
            owner = ", ".join(other_owners((name,), found.parent))
            raise ImportError(_found_first(name, found, owner))
    if (home / "pyproject.toml").is_file():  # the checkout: nobody installs into it
        return
    if owner := ", ".join(other_owners(PACKAGES, home)):
        problem = f"in '{home}' are files of {owner} in the folders of Onward's packages, {', '.join(PACKAGES)}"
        raise ImportError(f"{problem}: one has overwritten the other. {REMEDY}, and Onward again")


def _found_first(name: str, found: Path, owner: str) -> str:
    if owner:
        return f"the package '{name}' is that of the distribution {owner} ('{found}'), not Onward's. {REMEDY}"
    remedy = "Rename that file or folder, or start elsewhere: Python looks there first"
    return f"the package '{name}' is '{found}', not Onward's. {remedy}"


def _place_of(name: str, path: Sequence[str] | None) -> Path | None:
    """The folder, or file, that an import of `name` would read."""
    loaded = sys.modules.get(name) if path is None else None
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__)).parent
    spec = find_spec(name) if path is None else PathFinder.find_spec(name, list(path))
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return None if spec.origin is None else Path(spec.origin)


def other_owners(names: Sequence[str], folder: Path) -> Iterator[str]:
    """Distributions but Onward that have installed top-level packages or modules of these names into `folder`."""
    wanted = [beginning.encode() for name in names for beginning in (f"\n{name}/", f"\n{name}.py,")]
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        title, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        if title.lower() != DISTRIBUTION:
            with suppress(OSError):
                text = b"\n" + record.read_bytes()
                if any(beginning in text for beginning in wanted):
                    yield f"'{title} {version}'"
