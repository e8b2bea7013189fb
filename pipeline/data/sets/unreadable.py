"""Which files of a data set are no images that can be decoded, all of them, and not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.data.sets.decoding import REPLACE
from pipeline.data.sets.files import FileImages, Progress, for_each_block, read_image
from pipeline.data.sets.headers import read_size
from pipeline.errors import UserError

HEADERS_CHECKED = 10_000
IMAGES_DECODED = 256
AT_ONCE = 32
"""Images that a thread decodes before it says how far it is."""
SHOWN = 5


def unreadable(
    images: FileImages, numbers: Sequence[int] | None = None, *, whole: bool, progress: Progress | None = None
) -> dict[int, str]:
    """Look at every image, in threads.

    Args:
        images: in files.
        numbers: of those to look at; all if not given.
        whole: decode them; else only their headers are read, which does not show that a file was cut short.
        progress: told how far it is.

    Returns:
        What is wrong, naming the file, by the number of the image, in order.
    """
    chosen, found = range(len(images)) if numbers is None else numbers, dict[int, str]()

    def look(start: int, stop: int) -> None:
        for number in chosen[start:stop]:
            if (problem := _problem_of(images.files[number], read_image if whole else read_size)) is not None:
                found[number] = problem

    for_each_block(look, len(chosen), progress, AT_ONCE)
    return dict(sorted(found.items()))


def check_files(files: Sequence[str]) -> None:
    """Look at the headers of up to 10,000 evenly spaced files and decode up to 256 of them.

    Raises:
        UserError: naming the first file found that cannot be read.
    """
    for number in _evenly(len(files), HEADERS_CHECKED):
        read_size(files[number])
    for number in _evenly(len(files), IMAGES_DECODED):
        read_image(files[number])


def unreadable_of_sample(images: FileImages) -> list[str]:
    """What is wrong with the files of the same sample that `check_files` looks at, naming each."""
    found = unreadable(images, _evenly(len(images), HEADERS_CHECKED), whole=False)
    rest = [number for number in _evenly(len(images), IMAGES_DECODED) if number not in found]
    found |= unreadable(images, rest, whole=True)
    return [found[number] for number in sorted(found)]


def named(problems: Iterable[str]) -> str:
    """The first of them in one sentence, and how many there are more."""
    every = [problem.removesuffix(REPLACE) for problem in problems]
    return "; ".join(every[:SHOWN]) + (f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


def _problem_of(path: str, read: Callable[[str], object]) -> str | None:
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


def _evenly(count: int, most: int) -> list[int]:
    chosen = min(count, most)
    return [i * count // chosen for i in range(chosen)]
