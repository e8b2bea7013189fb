"""The file that CONFIG names: a path, or the name of a preset that is installed with the package.

A file that exists is always taken, whatever it is called; so a `quickstart` of the user's own goes before the preset.
`launch/presets` is `configs/` of the repository, which a wheel carries as package data.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pipeline.errors import UserError, did_you_mean

FOLDER = Path(str(files("launch") / "presets"))


def preset_names() -> list[str]:
    """The presets by name, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def configuration_file(given: str | Path) -> Path:
    """The file to read.

    Args:
        given: the path of a YAML file; or the name of a preset, `quickstart`, where there is no file of that name.

    Raises:
        UserError: there is neither.
    """
    path, name = Path(given), str(given)
    preset = FOLDER / f"{name}.yaml"
    # What is there and cannot be read, such as a folder, is refused by who reads it, unless it hides a preset.
    if _is_there(path) and not (path.is_dir() and name in preset_names()):
        return path
    if name in preset_names():
        return preset
    names = preset_names()
    hint = did_you_mean(path.stem, names)
    remedy = f"{hint}Give the path of a YAML file, or the name of a preset: {', '.join(names)}"
    raise UserError(f"configuration file '{given}' does not exist. {remedy}")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a null byte, a name that is too long: who reads it says so
        return True
