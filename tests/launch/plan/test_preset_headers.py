"""What the header of a preset says that it takes is what the account computes, and it fits where it says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from launch.plan.devices import device_accounts
from launch.plan.gpus import GIB, GPUS
from launch.plan.memories import ProcessMemories
from launch.prepare.placement import place
from pipeline.validation.loading import load_config
from tests.documents import PRESETS, header
from tests.marks import slow
from workers.determinism.child import run_in_child

pytestmark = pytest.mark.processes
LIMIT = 280.0
"""Seconds for a child; the account of a ResNet-50 takes about twenty on an idle core."""
SHARE = 0.01
"""Of a figure, by which it may be off beside its last digit."""
CHEAP = ("image_folder",)
"""Presets whose account takes a few seconds."""
BY_SIZE = {24: GPUS["l4"], 80: GPUS["a100-80"], 141: GPUS["h200"]}
"""GiB of the smallest GPU that is sold with so many GB."""
MANY = 8
"""GPUs where the header does not say on how many it fits, so that each process has its own."""
_SIZES = r"(?P<sizes>\d+\.\d(?:(?:, | and )\d+\.\d)*) GiB"
_OVERRIDE = r"[a-z][\w.]*=[^\s,;:)]+"
FIGURES = re.compile(rf"{_SIZES}(?: with (?P<overrides>{_OVERRIDE}(?: {_OVERRIDE})*))?")
FITS = re.compile(r"fits (?P<count>\d+) GPUs? of (?P<size>\d+) GB")


@dataclass(frozen=True)
class Figures:
    """What a preset takes, as its header says it.

    Args:
        sizes: GiB of the tensors of each process, one of several replicas.
        overrides: with which it is so.
        count, size: GPUs that hold it, and GB of each; None where that is not said.
    """

    sizes: tuple[float, ...]
    overrides: tuple[str, ...]
    count: int | None
    size: int | None


def figures(path: Path) -> Iterator[Figures]:
    """All that stand in the paragraph on memory; what follows one, up to the next, says where that fits."""
    found = re.search(r"^Memory: (.+?)^\w+: ", header(path), re.M | re.S)
    text = " ".join(found[1].split()) if found else ""
    matches = list(FIGURES.finditer(text))
    ends = [*(match.start() for match in matches), len(text)][1:]
    for match, end in zip(matches, ends, strict=True):
        sizes = tuple(map(float, re.findall(r"\d+\.\d", match["sizes"])))
        fits = FITS.search(text, match.end(), end)
        count, size = (int(fits["count"]), int(fits["size"])) if fits else (None, None)
        yield Figures(sizes, tuple((match["overrides"] or "").split()), count, size)


def cases() -> Iterator[object]:
    for path in PRESETS:
        for said in figures(path):
            name = " ".join([path.stem, *said.overrides])
            cheap = path.stem in CHEAP and not said.overrides
            yield pytest.param(path, said, id=name) if cheap else slow(path, said, id=name)


@pytest.mark.parametrize(("path", "said"), list(cases()))
def test_what_the_header_says_is_computed_again(path: Path, said: Figures) -> None:
    outcome = run_in_child(partial(computed, path, said), LIMIT)  # in a child: see test_process_memory
    assert outcome.result is not None, outcome
    needs, has, *sizes = map(float, outcome.result or ())
    assert len(sizes) == len(said.sizes), sizes
    assert [a for a, b in zip(said.sizes, sizes, strict=True) if abs(a - b) > 0.05 + SHARE * b] == [], sizes
    assert needs <= has, f"{needs:.1f} GiB are needed"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_that_is_not_a_small_example_says_what_it_takes_and_where_it_fits(path: Path) -> None:
    config, said = load_config(path), [figure for figure in figures(path) if not figure.overrides]
    if config.train.epochs >= 100:
        assert [figure.count for figure in said] != [], header(path)
        assert None not in [figure.count for figure in said], header(path)
        assert config.snapshots.every


def computed(path: Path, said: Figures) -> list[str]:
    """GiB: what the fullest GPU needs, and has; then the tensors of each process, one of several replicas."""
    config = load_config(path, said.overrides)
    placements = place(config, said.count or MANY)
    has = BY_SIZE[said.size] if said.size else float("inf")
    gpus = dict.fromkeys((device for placement in placements for device in placement.devices), 0)
    accounts = device_accounts(config, placements, gpus, ProcessMemories())
    one_of_each = list(dict.fromkeys(placement.device for placement in placements))
    tensors = {account.device: account.terms[0].bytes for account in accounts}
    needs = max(account.needs for account in accounts) / GIB
    return [str(needs), str(has), *(str(tensors[device] / GIB) for device in one_of_each)]
