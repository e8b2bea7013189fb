"""What lies below a folder: image files in an order that stays, and what is left out, which is always named.

A folder that people keep photographs in holds more than images: links that go round, pipes and sockets, hidden folders
of other programs, folders that may not be entered. An image counts once, and what is neither an image file nor a
folder is never opened, for that could wait for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SHOWN = 3
"""Of what is left out, so many are named; the others are counted."""
KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")
)  # fmt: skip


@dataclass
class LeftOut:
    """What a walk has passed over: paths by the reason."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Note one more."""
        self.by_reason.setdefault(reason, []).append(path)

    def copy(self) -> LeftOut:
        """The same paths; what is added to one is not added to the other."""
        return LeftOut({reason: [*paths] for reason, paths in self.by_reason.items()})

    def notes(self) -> list[str]:
        """A sentence for each reason."""
        return [
            f"left out, {reason}: {', '.join(repr(path) for path in paths[:SHOWN])}"
            + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
            for reason, paths in self.by_reason.items()
        ]


@dataclass(frozen=True)
class Listing:
    """What lies in one folder, itself and not below it.

    Args:
        folder: its path.
        folders: names of the folders in it, in order: neither hidden ones nor links that lead back above themselves.
        files: names of the image files in it, in order.
        left_out: what else lies there that somebody might have meant.
    """

    folder: Path
    folders: list[str]
    files: list[str]
    left_out: LeftOut


def list_folder(folder: Path) -> Listing:
    """Read a folder once.

    Raises:
        UserError: it, or what is in it, cannot be read.
    """
    left_out = LeftOut()
    return Listing(folder, *_entries(str(folder), [_identity(str(folder))], left_out), left_out)


def is_image(name: str) -> bool:
    """Whether a file of that name should be an image."""
    return name.lower().endswith(EXTENSIONS)


def has_image(folder: Path) -> bool:
    """Whether there is an image file anywhere below."""
    return any(files for _, _, files in _walk(str(folder), "", [], LeftOut()))


def images_below(listing: Listing, place: str, left_out: LeftOut) -> list[str]:
    """All image files below a folder, relative to it: folders in the order of their paths, as torchvision.

    Links are followed, and a link that leads nowhere counts as a file, for its content may have been there.

    Args:
        listing: of the folder of the data set.
        place: one of its folders; "." for all of it.
        left_out: gets what is passed over below the folder, not in it.

    Raises:
        UserError: a folder cannot be read.
    """
    top, above = str(listing.folder), [_identity(str(listing.folder))]
    places = listing.folders if place == "." else [place]
    below = [found for name in places for found in _walk(os.path.join(top, name), name, above, left_out)]
    if place == ".":
        below.append((top, "", listing.files))
    return [os.path.join(prefix, name) for _, prefix, names in sorted(below) for name in names]


def leading_out(names: Iterable[str], root: str) -> Iterator[tuple[str, str]]:
    """Files that a link leads to out of a folder, each with where it really lies.

    Args:
        names: paths of the files.
        root: the folder.
    """
    whole = os.path.join(os.path.realpath(root), "")
    folders: dict[str, str] = {}  # a link of a folder is looked up once, not for every file in it
    for name in names:
        above, last = os.path.split(name)
        if above not in folders:
            folders[above] = os.path.realpath(above)
        real = os.path.join(folders[above], last)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(whole):
            yield name, real


def _walk(
    where: str, below: str, above: list[tuple[int, int]], left_out: LeftOut
) -> Iterator[tuple[str, str, list[str]]]:
    """Every folder at and below `where`: its path, the same from where the walk began, and the images in it."""
    above = [*above, _identity(where)]
    folders, files = _entries(where, above, left_out)
    yield where, below, files
    for name in folders:
        yield from _walk(os.path.join(where, name), os.path.join(below, name), above, left_out)


def _entries(where: str, above: list[tuple[int, int]], left_out: LeftOut) -> tuple[list[str], list[str]]:
    """Folders and image files in one folder, in order.

    Args:
        where: the folder.
        above: it, and those that it was reached through.
        left_out: gets everything else that somebody might have meant.
    """
    folders, files = [], []
    try:
        with os.scandir(where) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"folder '{where}' cannot be read ({error.strerror}). Let this user read it, or take it out of the data set"
        ) from None
    for entry in entries:
        name, path = entry.name, entry.path
        found = _other_than_a_file(entry)
        if found is not None and stat.S_ISDIR(found.st_mode):
            if name.startswith("."):
                left_out.add("for they are hidden", path)
            elif (found.st_dev, found.st_ino) in above:
                left_out.add("for they lead back to a folder that they are in", path)
            else:
                folders.append(name)
        elif is_image(name):
            kind = None if found is None else next((words for test, words in KINDS if test(found.st_mode)), None)
            if name.startswith("."):
                left_out.add("for they are hidden", path)
            elif kind is not None:
                left_out.add(f"for each is {kind} and no file", path)
            else:
                files.append(name)
    return folders, files


def _other_than_a_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What lies there; None for a file and for a link that leads nowhere. A listing tells most files by itself."""
    try:
        return None if entry.is_file(follow_symlinks=False) else os.stat(entry.path)
    except OSError:
        return None


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # which reading it will say
        return (0, 0)
    return found.st_dev, found.st_ino
