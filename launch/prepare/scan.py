"""`onward check CONFIG --headers` and `--all`: look at every image of the training and of the test set, and list what
is wrong, so that a long run meets no broken file that could have been known.
"""

from __future__ import annotations

from launch.prepare.data_index import progress_line
from pipeline.data.sets.datasets import Splits
from pipeline.data.sets.decoding import REPLACE, leave_warnings_to_us
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.unreadable import unreadable
from pipeline.errors import UserError


def scan_images(splits: Splits, headers: bool, whole: bool) -> None:
    """Print a line for every image that cannot be used, and one that says how many were looked at.

    Args:
        splits: of the data set of the run.
        headers: read the header of every image file; nothing is done if neither is asked for.
        whole: decode every image.

    Raises:
        UserError: there are some, and `data.on_error` is fail; or the training set cannot be read at all.
    """
    if not (headers or whole):
        return
    leave_warnings_to_us()
    problems: list[str] = []
    looked = 0
    for images in (splits.train, _test_images(splits)):
        if isinstance(images, FileImages):
            looked += len(images)
            problems += unreadable(images, whole=whole, progress=progress_line()).values()
    for problem in problems:
        print(f"# {problem.removesuffix(REPLACE)}")
    how = "decoded" if whole else "read the headers of"
    print(f"# {how} {looked} image files: {len(problems)} cannot be used")
    if problems and splits.data.on_error == "fail":
        raise UserError(
            f"{len(problems)} of {looked} image files cannot be used: the lines above name them. Replace or remove "
            "them, or go on without them with data.on_error=skip"
        )


def _test_images(splits: Splits) -> object:
    """None where there is no test set, or none that fits: what `check` says of it follows."""
    try:
        return splits.test
    except UserError:
        return None
