"""An evaluation as files for other programs and for papers: CSV with every digit, Markdown with the tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from launch.results.evaluation_tables import describe, grids_of, keys_of
from launch.results.grid import markdown_of
from launch.results.measure_names import clean
from pipeline.errors import UserError
from pipeline.evaluation.document import EvaluationResults, Record
from workers.observing.standard_error import standard_error
from workers.run.files import write_bytes

COLUMNS = ("run", "checkpoint", "data", "block", "feature", "measure", "metric", "value", "best", "standard_error")
"""Columns of the CSV; programs rely on their order. `checkpoint`, `best` and `standard_error` may be empty."""


def write_csv(document: EvaluationResults, path: Path) -> None:
    """Write one line per record, in the document's order (RFC 4180, UTF-8), with every digit; replaces a file.

    Raises:
        UserError: the file cannot be written.
    """
    rows = (
        (document.run, document.checkpoint, r.data, r.block, r.feature, r.measure, r.metric, r.value, r.best, error)
        for r, error in zip(document.results, map(partial(_error, document), document.results), strict=True)
    )
    write_rows(path, COLUMNS, rows)


def _error(document: EvaluationResults, record: Record) -> float | None:
    """The standard error of an accuracy on the test images; None of other numbers, and where it is not known."""
    images = document.test_images(record.data)
    is_share = record.metric in ("top1", "top5") and 0 <= record.value <= 1
    return standard_error(record.value, images) if images and is_share else None


def write_markdown(document: EvaluationResults, path: Path) -> None:
    """Write all tables, also that of the single corruptions, as GitHub's Markdown; replaces a file.

    Raises:
        UserError: the file cannot be written.
    """
    name = clean(Path(document.run).name or document.run)
    parts = [f"# Evaluation of `{name.replace('`', '')}`\n", describe(document) + "\n"]
    parts += [markdown_of(grid) for grid in grids_of(document, details=True)]
    parts += [f"{line}\n" for line in keys_of(document)]
    write_file(path, "\n".join(parts).encode("utf-8"))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header (RFC 4180, UTF-8); None is an empty field.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    write_file(path, text.getvalue().encode("utf-8", errors="replace"))


def write_file(path: Path, data: bytes) -> None:
    """Write a file at once, with the folders above it; replaces a file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except (OSError, ValueError) as error:  # a null byte in the path is a ValueError
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"'{path}' cannot be written ({reason}). Give a place in which you may write") from None
