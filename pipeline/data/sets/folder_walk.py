"""Lists the image files below a folder in a stable order, and names everything that it skips.

A folder of photographs holds more than images: links in circles, pipes and sockets, hidden folders of other programs,
folders without read permission. Every image is listed once, and an entry that is neither an image file nor a folder is
never opened, because that could block forever.
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
"""Number of skipped paths that a message names for each reason; the others are only counted."""
KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")
)  # fmt: skip


@dataclass
class SkippedFiles:
    """Paths that a walk has skipped, by reason."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Add one path."""
        self.by_reason.setdefault(reason, []).append(path)

    def copy(self) -> SkippedFiles:
        """An independent copy."""
        return SkippedFiles({reason: [*paths] for reason, paths in self.by_reason.items()})

    def notes(self) -> list[str]:
        """One sentence per reason."""
        return [
            f"skipped, {reason}: {', '.join(repr(path) for path in paths[:SHOWN])}"
            + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
            for reason, paths in self.by_reason.items()
        ]


@dataclass(frozen=True)
class Listing:
    """The entries of one folder, without those of its subfolders.

    Args:
        folder: its path.
        folders: names of the folders in it, in order: neither hidden ones nor links that lead back above themselves.
        files: names of the image files in it, in order.
        left_out: entries that look like data and are skipped.
    """

    folder: Path
    folders: list[str]
    files: list[str]
    left_out: SkippedFiles


def list_folder(folder: Path) -> Listing:
    """Read a folder once.

    Raises:
        UserError: the folder, or an entry of it, cannot be read.
    """
    left_out = SkippedFiles()
    return Listing(folder, *_entries(str(folder), [_identity(str(folder))], left_out), left_out)


def is_image(name: str) -> bool:
    """Whether a file of that name should be an image."""
    return name.lower().endswith(EXTENSIONS)


def has_image(folder: Path) -> bool:
    """Whether there is an image file anywhere below."""
    return any(files for _, _, files in _walk(str(folder), "", [], SkippedFiles()))


def images_below(listing: Listing, place: str, left_out: SkippedFiles) -> list[str]:
    """All image files below a folder, relative to it: folders in the order of their paths, as torchvision.

    Links are followed, and a link that leads nowhere counts as a file, for its content may have been there.

    Args:
        listing: of the folder of the data set.
        place: one of its folders; "." for the whole data set.
        left_out: collects the paths that are skipped below the folder, not in it.

    Raises:
        UserError: a folder cannot be read.
    """
    top, above = str(listing.folder), [_identity(str(listing.folder))]
    places = listing.folders if place == "." else [place]
    below = [each for name in places for each in _walk(os.path.join(top, name), name, above, left_out)]
    if place == ".":
        below.append((top, "", listing.files))
    return [os.path.join(prefix, name) for _, prefix, names in sorted(below) for name in names]


def links_out_of(names: Iterable[str], root: str) -> Iterator[tuple[str, str]]:
    """The files that links lead to outside of a folder: the path of each, and its real path.

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
    folder: str, below: str, above: list[tuple[int, int]], left_out: SkippedFiles
) -> Iterator[tuple[str, str, list[str]]]:
    """Every folder at and below `folder`: its path, its path relative to the start of the walk, and its images."""
    above = [*above, _identity(folder)]
    folders, files = _entries(folder, above, left_out)
    yield folder, below, files
    for name in folders:
        yield from _walk(os.path.join(folder, name), os.path.join(below, name), above, left_out)


def _entries(folder: str, above: list[tuple[int, int]], left_out: SkippedFiles) -> tuple[list[str], list[str]]:
    """Folders and image files in one folder, in order.

    Args:
        folder: its path.
        above: identities of this folder and of those that it was reached through.
        left_out: collects entries that look like data and are skipped.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"folder '{folder}' cannot be read ({error.strerror}). "
            "Let this user read it, or take it out of the data set"
        ) from None
    for entry in entries:
        name, path = entry.name, entry.path
        status = _status_unless_file(entry)
        if status is not None and stat.S_ISDIR(status.st_mode):
            if name.startswith("."):
                left_out.add("because they are hidden", path)
            elif (status.st_dev, status.st_ino) in above:
                left_out.add("because they link to a folder that contains them", path)
            else:
                folders.append(name)
        elif is_image(name):
            kind = None if status is None else next((words for test, words in KINDS if test(status.st_mode)), None)
            if name.startswith("."):
                left_out.add("because they are hidden", path)
            elif kind is not None:
                left_out.add(f"because each is {kind} and no file", path)
            else:
                files.append(name)
    return folders, files


def _status_unless_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The status of an entry; None for a file (known from the listing, without a call) and for a dangling link."""
    try:
        return None if entry.is_file(follow_symlinks=False) else os.stat(entry.path)
    except OSError:
        return None


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # reading the folder raises it again, with a message
        return (0, 0)
    return status.st_dev, status.st_ino
