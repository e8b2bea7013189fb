"""The picture of the pipeline at work: of one attempt, of every way to train, with the way of one batch in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from launch.pages.colours import on_bar, stage_colour
from launch.pages.gantt import gantt
from launch.results.figure_style import styled
from tests.observing.traces import MS, feed_events, header, stage_events, write_part
from workers.observing.trace_part import Slice, read_parts


def test_end_to_end_the_backward_pass_is_no_gap(tmp_path: Path) -> None:
    """There is no update of one stage, but its parts: the loss of the last block, and everybody's optimizer."""
    parts = ("forward", "head", "backward", "optimizer")
    write_part(
        tmp_path,
        header("serial run", 0, [1, 2]),
        [
            Slice(f"stage {stage}", name, (100 * step + 40 * stage + 10 * place) * MS, 10 * MS, step)
            for step in range(9)
            for stage in (1, 2)
            for place, name in enumerate(parts)
            if stage == 2 or name in ("forward", "optimizer")
        ],
    )
    with styled():
        picture = gantt(read_parts(tmp_path)[0], 2)
    assert picture is not None
    axes = picture.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stage 1", "stage 2"]
    bars = [len(found.get_paths()) for found in axes.collections]
    assert bars == [5, 5, 15, 5], "optimizer and forward of stage 1; head, backward and optimizer, forward of stage 2"
    assert "one process trains all stages in turn" in picture.caption


@pytest.mark.parametrize(("again", "step"), [(range(1, 7), 4), (range(8, 30), 19), (range(2, 9), 5)])
def test_the_picture_is_of_one_attempt(tmp_path: Path, again: range, step: int) -> None:
    """Steps that were done again after a snapshot lie far apart in time, and so do those before it and after it."""
    for stage in (1, 2):
        write_part(tmp_path, header(f"stage {stage}", stage - 1, [stage]), stage_events(stage, range(8)))
        head = header(f"stage {stage}", stage - 1, [stage], began=10**12)
        write_part(tmp_path, head, stage_events(stage, again, first=10**6))
    with styled():
        picture = gantt(read_parts(tmp_path)[0], 2)
    assert picture is not None
    assert f"the batch of step {step} " in picture.caption
    assert picture.figure.axes[0].get_xlim()[1] < 1000


def test_the_picture_is_of_a_step_that_no_restart_of_a_stage_broke(tmp_path: Path) -> None:
    for stage in (1, 2):
        write_part(tmp_path, header(f"stage {stage}", stage - 1, [stage]), stage_events(stage, range(9)))
    write_part(tmp_path, header("stage 1", 0, [1], began=10**9), stage_events(1, range(3, 9), first=2000))
    with styled():
        picture = gantt(read_parts(tmp_path)[0], 2)
    assert picture is not None
    assert "the batch of step 1 " in picture.caption, "the middle of what was done once"


def test_replicas_get_their_rows_of_a_batch(tmp_path: Path) -> None:
    write_part(tmp_path, header("coordinator", -1), feed_events(range(6)))
    for stage, replicas in ((1, 2), (2, 4)):
        for replica in range(1, replicas + 1):
            head = header(f"stage {stage} replica {replica}", stage - 1, [stage], replica, replicas=replicas)
            write_part(tmp_path, head, stage_events(stage, range(6)))
    with styled():
        picture = gantt(read_parts(tmp_path)[0], 2)
    assert picture is not None
    ways = [(text.xyann[1], text.xy[1]) for text in picture.figure.axes[0].texts if isinstance(text, Annotation)]
    assert [(round(from_row), round(to_row)) for from_row, to_row in ways] == [(1, 3), (1, 4), (2, 5), (2, 6)]


@pytest.mark.parametrize("count", [1, 4, 12])
def test_the_number_on_a_bar_can_be_read(count: int) -> None:
    def light(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.05 + sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for stage in range(1, count + 1):
        bar = stage_colour(stage, count)
        for letters, ground in zip(on_bar(bar), bar, strict=True):
            ratio = light(letters) / light(ground)
            assert max(ratio, 1 / ratio) > 3.8, (stage, letters, ground)
