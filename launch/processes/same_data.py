"""Whether every rank that reads images itself has those of rank 0, before training is begun (`data.feed: stages`).

Stage 1 compares them again with the first batch; by then the run directory is written and the groups are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launch.errors import in_a_sentence
from launch.prepare.data_index import progress_line
from launch.processes.presence import Presence, Problem
from pipeline.config import Config
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.index import Index, scan
from workers.control.start_messages import StartMessage
from workers.control.validation import Count
from workers.feed.first_stage import stages_read_images
from workers.topology.processes import training_processes

REMEDY = "With data.feed=stages every host that runs stage 1 needs the same data set under data.root"
PARTS = {
    "names": "other file names",
    "sizes": "files of other sizes",
    "labels": "other labels",
    "pixels": "other pixels",
}
"""What a digest is of, and how it is said that it differs."""


@dataclass(frozen=True, kw_only=True)
class DataSummary(StartMessage):
    """The training set of one rank.

    Args:
        read: whether this rank reads it.
        root: where it is.
        images: how many there are.
        names, sizes, labels, pixels: digests; `pixels` of a data set without files.
        problem: why it cannot be read; empty if it can.
    """

    read: bool = False
    root: str = ""
    images: Count = 0
    names: str = ""
    sizes: str = ""
    labels: str = ""
    pixels: str = ""
    problem: str = ""


def readers(config: Config, presences: Sequence[Presence]) -> list[int]:
    """The ranks that read images, if some of them are on another host than rank 0; else none."""
    if not stages_read_images(config):
        return []
    ranks = [process.rank for process in training_processes(config) if process.stage_group == 0]
    return ranks if any(presences[rank].first != presences[0].first for rank in ranks) else []


def summary_of(config: Config, reads: bool) -> DataSummary:
    """The training set as this rank has it; it is looked at only if this rank `reads` it."""
    if not reads:
        return DataSummary()
    try:
        index = scan(open_dataset(config.data, "train"), progress_line())
    except Exception as error:  # whatever it is, the others wait for this rank
        return DataSummary(read=True, problem=in_a_sentence(error))
    return _summary(str(config.data.root or ""), index)


def differences(presences: Sequence[Presence], summaries: Sequence[DataSummary]) -> list[Problem]:
    """In what the training sets of the ranks differ from that of rank 0."""
    problems, first = [], summaries[0]
    for presence, each in zip(presences, summaries, strict=True):
        if each.problem:
            text, remedy = f": {each.problem}", ""
        elif each.read and not first.problem and (what := _difference(first, each)):
            here, there = (f" in '{one.root}'" if one.root else "" for one in (each, first))
            text = f" has another data set{here} than rank 0 on {presences[0].host}{there}: {what}"
            remedy = REMEDY
        else:
            continue
        problems.append(Problem(rank=presence.rank, host=presence.host, text=text, remedy=remedy))
    return problems


def _difference(first: DataSummary, each: DataSummary) -> str:
    if each.images != first.images:
        return f"{each.images} images, not {first.images}"
    return next((words for part, words in PARTS.items() if getattr(each, part) != getattr(first, part)), "")


def _summary(root: str, index: Index) -> DataSummary:
    def digest(*arrays: np.ndarray) -> str:
        found = hashlib.sha256()
        for array in arrays:
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    return DataSummary(
        read=True,
        root=root,
        images=len(index.labels),
        names=digest(index.files.ends, index.files.text),
        sizes=digest(index.sizes),
        labels=digest(index.labels),
        pixels=index.contents,
    )
