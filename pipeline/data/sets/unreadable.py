"""Finds all files of a data set that cannot be decoded, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.data.sets.decoding import REPLACE
from pipeline.data.sets.files import FileImages, Progress, for_each_block, read_image
from pipeline.data.sets.headers import read_size
from pipeline.errors import UserError

HEADERS_CHECKED = 10_000
IMAGES_DECODED = 256
AT_ONCE = 32
"""Images that a thread decodes between two progress reports."""
SHOWN = 5


def find_unreadable(
    images: FileImages, numbers: Sequence[int] | None = None, *, whole: bool, progress: Progress | None = None
) -> dict[int, str]:
    """Check every image, in threads.

    Args:
        images: in files.
        numbers: indices of the images to check; all if not given.
        whole: decode them; otherwise only headers are read, which does not find truncated files.
        progress: called with images done and images in all.

    Returns:
        By the index of the image, ascending: the error message, which names the file.
    """
    chosen, problems = range(len(images)) if numbers is None else numbers, dict[int, str]()

    def look(start: int, stop: int) -> None:
        for number in chosen[start:stop]:
            if (problem := _problem_of(images.files[number], read_image if whole else read_size)) is not None:
                problems[number] = problem

    for_each_block(look, len(chosen), progress, AT_ONCE)
    return dict(sorted(problems.items()))


def check_files(files: Sequence[str]) -> None:
    """Read the headers of up to 10,000 evenly spaced files and decode up to 256 of them.

    Raises:
        UserError: naming the first file found that cannot be read.
    """
    for number in _evenly(len(files), HEADERS_CHECKED):
        read_size(files[number])
    for number in _evenly(len(files), IMAGES_DECODED):
        read_image(files[number])


def unreadable_of_sample(images: FileImages) -> list[str]:
    """The error messages of the sample of files that `check_files` reads, each naming its file."""
    problems = find_unreadable(images, _evenly(len(images), HEADERS_CHECKED), whole=False)
    rest = [number for number in _evenly(len(images), IMAGES_DECODED) if number not in problems]
    problems |= find_unreadable(images, rest, whole=True)
    return [problems[number] for number in sorted(problems)]


def summarized(problems: Iterable[str]) -> str:
    """The first problems in one sentence, and the number of the others."""
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
