"""`onward check --headers` and `--all`: reads every image of the training and test set, and lists the broken ones.

So a long run meets no broken file that could have been found before it started.
"""

from __future__ import annotations

from launch.prepare.data_index import progress_line
from pipeline.data.sets.datasets import Splits
from pipeline.data.sets.decoding import REPLACE, silence_size_warnings
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.unreadable import find_unreadable
from pipeline.errors import UserError
from workers.observing.terminal.verbosity import say


def scan_images(splits: Splits, headers: bool, decode: bool) -> None:
    """Print a line for every image that cannot be used, and one with the number of images that were read.

    Args:
        splits: of the data set of the run.
        headers: read the header of every image file; nothing is done if neither is asked for.
        decode: decode every image.

    Raises:
        UserError: there are some, and `data.on_error` is fail; or the training set cannot be read at all.
    """
    if not (headers or decode):
        return
    silence_size_warnings()
    problems: list[str] = []
    count = 0
    for images in (splits.train, _test_images(splits)):
        if isinstance(images, FileImages):
            count += len(images)
            problems += find_unreadable(images, whole=decode, progress=progress_line()).values()
    for problem in problems:
        say(f"# {problem.removesuffix(REPLACE)}", important=True)
    how = "decoded" if decode else "read the headers of"
    say(f"# {how} {count} image files: {len(problems)} cannot be used", important=True)
    if problems and splits.data.on_error == "fail":
        raise UserError(
            f"{len(problems)} of {count} image files cannot be used: the lines above name them. Replace or remove "
            "them, or go on without them with data.on_error=skip"
        )


def _test_images(splits: Splits) -> object:
    """None where there is no test set, or none that fits, which `check` reports itself."""
    try:
        return splits.test
    except UserError:
        return None
