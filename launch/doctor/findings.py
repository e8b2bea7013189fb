"""One line of the page: right, worth knowing, or wrong with a remedy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline.errors import printable
from workers.control.start_messages import StartMessage

WIDTH = 112
INDENT = " " * 19
Text = Annotated[str, Field(max_length=4000)]


@dataclass(frozen=True)
class Finding(StartMessage):
    """What one look has found.

    Args:
        subject: what was looked at.
        text: what is there.
        remedy: what to do; empty where all is right.
        wrong: whether runs fail or suffer from it; with a remedy and not wrong it is worth knowing.
    """

    subject: Text
    text: Text
    remedy: Text = ""
    wrong: bool = False

    @classmethod
    def problem(cls, subject: str, text: str, remedy: str) -> Finding:
        """What is wrong."""
        return cls(subject, text, remedy, wrong=True)


def page(findings: Iterable[Finding]) -> str:
    """The findings, one below the other: sign, subject, text; what to do on a line of its own."""
    lines = []
    for finding in findings:
        sign = "WRONG" if finding.wrong else "note" if finding.remedy else "ok"
        lines.append(_wrapped(f"{sign:5}  {finding.subject:11} ", finding.text))
        if finding.remedy:
            lines.append(_wrapped(f"{INDENT}-> ", finding.remedy))
    return printable("\n".join(lines))


def _wrapped(begin: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )
