"""What the documents show: paragraphs, blocks of commands, and what stands between backticks, by line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sources import REPOSITORY, name_of, text_of

DOCUMENTS = sorted(
    path for glob in ("*.md", "configs/*.md", "deploy/**/*.md", "docs/**/*.md") for path in REPOSITORY.glob(glob)
)
PRESETS = sorted(REPOSITORY.glob("configs/*.yaml"))


@dataclass(frozen=True)
class Block:
    """Lines between two fences.

    Args:
        line: of the file, counted from 1, of its first one.
        language: after the opening fence; most have none.
        text: without the fences.
    """

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text that belongs together: a paragraph, an item of a list, or a row of a table."""

    line: int
    text: str

    @property
    def code(self) -> list[str]:
        """What stands between backticks, in order."""
        return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", self.text)]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(text.count("\n", 0, match.start(2)) + 1, match[1], match[2]) for match in found]


def prose(text: str) -> str:
    """The document with its blocks blanked, so that lines keep their numbers."""
    return re.sub(r"^```\w*\n.*?^```$", lambda match: "\n" * match[0].count("\n"), text, flags=re.M | re.S)


def paragraphs(text: str) -> Iterator[Paragraph]:
    """All text outside of blocks."""
    begun, kept = 0, list[str]()
    for number, line in enumerate([*prose(text).split("\n"), ""], 1):
        if not line.strip() or re.match(r"- |\d+\. |\|", line):
            if kept:
                yield Paragraph(begun, "\n".join(kept))
            kept = []
        if line.strip():
            begun = begun if kept else number
            kept.append(line)


def broken_tables(text: str) -> Iterator[int]:
    """Lines at which rows stand without a heading above them, which Markdown shows as text with bars."""
    lines = prose(text).split("\n")
    for number, line in enumerate(lines):
        begins = line.startswith("|") and (number == 0 or not lines[number - 1].startswith("|"))
        if begins and not re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", lines[number + 1] if number + 1 < len(lines) else ""):
            yield number + 1


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block, as a shell would hand them to it: joined, unrolled, without comments."""
    lines = iter(text.replace("\\\n", "").split("\n"))
    for line in lines:
        loop = re.fullmatch(r"for (\w+) in (.+); do", line.strip())
        if loop is None:
            yield from _of_line(line)
            continue
        body = list(iter(lambda: next(lines).strip(), "done"))
        for value in loop[2].split():
            for inner in body:
                yield from _of_line(inner.replace(f"${loop[1]}", value))


def _of_line(line: str) -> Iterator[list[str]]:
    for part in line.split(" && "):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # an apostrophe of what a program has printed
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words and words[0] in ("onward", "torchrun", "python", "make", "sbatch", "srun"):
            yield words[: words.index("&")] if "&" in words else words


def header(path: Path) -> str:
    """The comment that opens a preset, without its marks."""
    lines = []
    for line in text_of(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def place(path: Path, line: int) -> str:
    """As messages name it."""
    return f"{name_of(path)}:{line}"
