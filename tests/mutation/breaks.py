"""A break, a line that says something else; and the draw of a sample that leaves out no folder."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath


@dataclass(frozen=True)
class Break:
    """One line that says something else.

    Args:
        file: from the root of the checkout.
        line: counted from 1.
        kind: what was done, in words.
        before, after: the line, without its end.
    """

    file: str
    line: int
    kind: str
    before: str
    after: str

    def applied_to(self, source: str) -> str:
        """`source` with the break; raises ValueError where the line is another one."""
        lines = source.splitlines(keepends=True)
        old = lines[self.line - 1]
        if old.rstrip("\r\n") != self.before:
            raise ValueError(f"{self.file}:{self.line} is {old!r}, not {self.before!r}")
        lines[self.line - 1] = self.after + old[len(self.before) :]
        return "".join(lines)


def is_a_program(found: Break, source: str) -> bool:
    """Whether Python can read the broken file; and the line is another one: a large number may equal itself plus 1."""
    try:
        ast.parse(found.applied_to(source))
    except SyntaxError:
        return False
    return found.after != found.before


def draw(candidates: Sequence[Break], sources: Mapping[str, str], size: int, seed: int) -> list[Break]:
    """At most one break a line, `size` in all, or more where there are more folders; the same ones for the same seed.

    Every folder in which something can be broken gets one, and the others go to folders in proportion to their lines;
    inside a folder the kinds of breaks take turns. What is drawn depends on what lines say and not on where they stand,
    so that a change to a file moves few of the others.

    Args:
        candidates: everything that can be broken.
        sources: the text of every file.
        size: of the sample; fewer if there are fewer lines to break.
        seed: another one draws others.

    Returns:
        The breaks in an order that spreads them over the folders.
    """
    twins: Counter[tuple[str, str, str]] = Counter()
    ranks: dict[Break, str] = {}
    for found in candidates:
        twins[found.file, found.before, found.after] += 1
        words = (seed, found.file, found.before, found.after, twins[found.file, found.before, found.after])
        ranks[found] = hashlib.sha256(repr(words).encode()).hexdigest()
    ranked: dict[str, dict[str, list[Break]]] = defaultdict(lambda: defaultdict(list))
    for found in sorted(candidates, key=ranks.__getitem__):
        ranked[_folder(found.file)][found.kind].append(found)
    lines: Counter[str] = Counter()
    for file, text in sources.items():
        if _folder(file) in ranked:
            lines[_folder(file)] += len(text.splitlines())
    places = {(found.file, found.line) for found in candidates}
    drawn: list[Break] = []
    for folder, share in _shares(lines, Counter(_folder(file) for file, _ in places), size).items():
        in_turn = (found for turn in zip_longest(*ranked[folder].values()) for found in turn if found is not None)
        chosen: dict[tuple[str, int], Break] = {}
        for found in in_turn:
            if len(chosen) == share:
                break
            if (found.file, found.line) not in chosen and is_a_program(found, sources[found.file]):
                chosen[found.file, found.line] = found
        drawn += chosen.values()
    return sorted(drawn, key=ranks.__getitem__)


def _shares(lines: Mapping[str, int], available: Mapping[str, int], size: int) -> dict[str, int]:
    """One for every folder; then, one at a time, to the folder that is furthest behind its share of the lines."""
    shares = dict.fromkeys(lines, 1)
    while sum(shares.values()) < size:
        behind = [folder for folder in lines if shares[folder] < available[folder]]
        if not behind:
            break
        shares[max(behind, key=lambda folder: (lines[folder] / shares[folder], folder))] += 1
    return shares


def _folder(file: str) -> str:
    return PurePath(file).parent.as_posix()
