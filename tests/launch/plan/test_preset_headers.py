"""What the header of a preset says that it takes is what the account computes, and it fits where it says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from launch.plan.process_memory import process_memory
from pipeline.validation.loading import load_config
from tests.documents import PRESETS, header
from tests.marks import slow
from workers.determinism.child import run_in_child
from workers.topology.processes import stage_groups

pytestmark = pytest.mark.processes
GIB = 2**30
LIMIT = 280.0
"""Seconds for a child; the account of a ResNet-50 takes about ten on an idle core."""
SHARE = 0.01
"""Of a figure, by which it may be off beside its last digit."""
CHEAP = ("image_folder", "deepspeed_zero1")
"""Presets whose account takes a second or two."""
_SIZES = r"(?P<sizes>\d+\.\d(?:(?:, | and )\d+\.\d)*) (?P<unit>[MG]iB)"
_OVERRIDE = r"[a-z][\w.]*=[^\s,;:)]+"
FIGURES = re.compile(rf"{_SIZES}(?: with (?P<overrides>{_OVERRIDE}(?: {_OVERRIDE})*))?")


@dataclass(frozen=True)
class Figures:
    """What the processes of a run take, as the header of a preset says it.

    Args:
        sizes: of each process that differs, in bytes.
        digit: half of the last digit that is printed, in bytes.
        overrides: with which it is so.
    """

    sizes: tuple[float, ...]
    digit: float
    overrides: tuple[str, ...]


def figures(path: Path) -> list[Figures]:
    """All that stand in the paragraph on memory."""
    found = re.search(r"^Memory: (.+?)^\w+: ", header(path), re.M | re.S)
    text = " ".join(found[1].split()) if found else ""
    return [
        Figures(
            tuple(float(size) * unit for size in re.findall(r"\d+\.\d", match["sizes"])),
            unit / 20,
            tuple((match["overrides"] or "").split()),
        )
        for match in FIGURES.finditer(text)
        for unit in [GIB if match["unit"] == "GiB" else 2**20]
    ]


def cases() -> Iterator[object]:
    for path in PRESETS:
        for said in figures(path):
            name = " ".join([path.stem, *said.overrides])
            cheap = path.stem in CHEAP and not said.overrides
            yield pytest.param(path, said, id=name) if cheap else slow(path, said, id=name)


@pytest.mark.parametrize(("path", "said"), cases())
def test_what_the_header_says_is_computed_again(path: Path, said: Figures) -> None:
    computed = peaks(path, said.overrides)
    assert len(computed) == len(said.sizes), computed
    for size, expected in zip(said.sizes, computed, strict=True):
        assert abs(size - expected) <= said.digit + SHARE * expected, [f"{peak / GIB:.2f} GiB" for peak in computed]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_that_is_not_a_small_example_says_what_it_takes(path: Path) -> None:
    config = load_config(path)
    if config.train.epochs >= 100:
        assert [said for said in figures(path) if not said.overrides], header(path)
        assert config.snapshots.every


def peaks(path: Path, overrides: tuple[str, ...]) -> list[int]:
    """Bytes at most of every process. In a child: see test_process_memory."""
    outcome = run_in_child(partial(computed_peaks, path, overrides), LIMIT)
    assert not outcome.error, outcome
    return [int(peak) for peak in outcome.result or ()]


def computed_peaks(path: Path, overrides: tuple[str, ...]) -> list[str]:
    config = load_config(path, overrides)
    groups = [tuple(range(1, config.num_stages + 1))] if config.in_one_process else stage_groups(config)
    return [str(process_memory(config, group).peak) for group in groups]
