"""`make gpu`, or `python -m tests.gpu [--device cuda|cpu] [--small] [--part N/4] [--out FILE.json] [--minutes M]`.

Measures what FILE does not have of this machine, this version of torch and this commit, row by row, and prints one
table. The exit code is 0 if all rows of the parts that were asked for are there, none has failed and all digests agree;
1 if not; 2 if it cannot start.
"""

from __future__ import annotations

import argparse
import re
import sys

from tests.gpu.packages import problems


def part(text: str) -> int:
    """`2/4`, or `2`, to 2."""
    found = re.fullmatch(r"([1-4])(?:/4)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no part; there are 1/4, 2/4, 3/4 and 4/4")
    return int(found[1])


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.gpu", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes: that everything works, and not how fast")
    parser.add_argument("--part", type=part, action="append", help="one part of four, such as 2/4; all if not given")
    parser.add_argument("--out", help="file of the rows; runs/gpu/DEVICE.json if not given")
    parser.add_argument("--minutes", type=float, help="begin no row after so many; 2.5 a part on a GPU if not given")
    given = parser.parse_args()
    if lacking := problems():
        print(*lacking, sep="\n", file=sys.stderr)
        return 2
    from tests.gpu.command import run

    return run(given.device, given.small, given.part or [1, 2, 3, 4], given.out, given.minutes)


if __name__ == "__main__":
    sys.exit(main())
