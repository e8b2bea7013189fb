"""`onward report`: one self-contained page about a run, and the same figures for a paper."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from launch.pages.charts import Picture, charts
from launch.pages.colours import DRAWN
from launch.pages.gantt import gantt
from launch.pages.page import page, stages_of
from launch.pages.reading import RunRecord, read_run
from launch.results.figure_style import save, styled
from launch.results.result_files import write_file
from pipeline.errors import UserError
from workers.observing.trace_file import is_merged, merge_trace


def write_report(path: Path, to: Path | None = None) -> list[str]:
    """Write `RUN/report.html`, and every figure as PNG and SVG to the folder of the same name, `RUN/report/`.

    If the traces of the processes were not merged, because they were killed, they are merged now.

    Args:
        path: the run directory; the run may be running, failed or done.
        to: the file to write instead of `RUN/report.html`, such as `pages/mine.html`; figures then go to `pages/mine/`.

    Returns:
        Sentences for the user; the last one says where the page is.

    Raises:
        UserError: there is no run, no step of it has ended, its metrics are damaged, or a file cannot be written.
    """
    target = path / "report.html" if to is None else to
    if target.is_dir():
        raise UserError(f"'{target}' is a folder. Give a file, such as '{target / 'report.html'}'")
    if target.suffix.lower() not in (".html", ".htm"):  # so that no file of another kind is replaced by mistake
        raise UserError(f"'{target}' is no name of a page. Give one that ends in .html")
    record, folder = read_run(path), target.with_suffix("")
    with styled():
        mpl.rcParams.update(DRAWN)
        pictures = _pictures(record)
        html = page(record, pictures, folder.name)
        for picture in pictures:
            save(picture.figure, folder, picture.key)
    write_file(target, html.encode("utf-8", errors="replace"))
    sentences = list(record.notes)
    if record.parts and record.outcome.word != "running" and not is_merged(record.run):
        sentences += merge_trace(record.run)
    return [*sentences, f"report in {target}; its figures, PNG and SVG, in {folder}"]


def _pictures(record: RunRecord) -> list[Picture]:
    count = stages_of(record)
    pipeline = gantt(record.parts, count)
    rest = charts(record.series, count, record.config.link.depth)
    return [*([] if pipeline is None else [pipeline]), *rest]
