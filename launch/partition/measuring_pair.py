"""Links and sums of gradients, timed between two processes of this machine that do what two stages do.

    process 0    send | wait until it is taken            send | ...
    process 1              receive, and check it                 receive | ...

Messages of two sizes are timed, an image and a batch: from both follows what a message costs, and what a byte costs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any

from launch.partition.costs import LinkCost
from launch.partition.finest import cut_everywhere
from pipeline.config import Config
from pipeline.errors import UserError
from workers.links.factory import Kind
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import LineReader, write_line
from workers.topology.rendezvous import link_spec

LARGEST = 2**26
"""Bytes of a message that is timed; larger ones have fewer images."""
START_SECONDS = 60.0
"""Limit for two processes that load torch, find each other, and compute on a machine that is busy."""


@dataclass(frozen=True)
class PairCosts:
    """What two processes have measured.

    Args:
        links: by kind.
        summing: see `Costs.summing`.
    """

    links: Mapping[Kind, LinkCost]
    summing: float


def measured_pair(config: Config, kinds: Sequence[Kind], devices: Sequence[str], seconds: float) -> PairCosts:
    """Time links, and the sum of gradients over two replicas.

    Args:
        config: of the run; the network is cut after every unit, and a cut of medium size is taken.
        kinds: of the links.
        devices: of the two processes, as torch names them. On GPUs, sums are timed only if there are two: over
            NCCL they are hidden behind the backward pass but for the last bucket, and `summing` is 0 without them.
        seconds: for all of it, but for the start of the processes.

    Raises:
        UserError: a link cannot be opened, or the processes ended.
    """
    sums = devices[0] == "cpu" or devices[0] != devices[1]
    with tempfile.TemporaryDirectory(prefix="onward_") as folder:
        common = {
            "config": config.model_dump_json(),
            "folder": folder,
            "key": os.urandom(32).hex(),
            "links": [(kind, _shapes(config)) for kind in kinds],
            "sums": sums,
            "seconds": seconds / (2 * len(kinds) + sums),
            "limit": START_SECONDS + seconds,
        }
        sender, receiver = _answers(
            [{**common, "rank": rank, "device": devices[rank]} for rank in range(2)], config.threads
        )
    both = zip(kinds, sender["links"], receiver["links"], strict=True)
    links = {kind: _cost(kind, sent, received) for kind, sent, received in both}
    summed = sender.get("summing")
    return PairCosts(links, 0.0 if summed is None else median(summed["seconds"]) / summed["bytes"])


def _cost(kind: Kind, sent: Sequence[Mapping[str, Any]], received: Sequence[Mapping[str, Any]]) -> LinkCost:
    """From the answers of both ends, each for the small message and for the large one."""
    (out, out_large), (into, into_large) = ([median(size["seconds"]) for size in end] for end in (sent, received))
    more = sent[1]["bytes"] - sent[0]["bytes"]
    there, there_large = (
        median(arrived - gone for gone, arrived in zip(before["at"], after["at"], strict=True))
        for before, after in zip(sent, received, strict=True)
    )
    latency = max(there - into, 0.0)
    travelling = there_large - into_large - latency
    return LinkCost(
        sending=max(out_large - out, 0.0) / more,
        receiving=max(into_large - into, 0.0) / more,
        message=(out + into) / 2,
        bandwidth=inf if kind == "queue" or travelling <= 0 else more / travelling,
        latency=latency,
    )


def _shapes(config: Config) -> list[list[int]]:
    """Of a message of one image, and of one of a batch, at a cut of medium size."""
    every = cut_everywhere(config)
    specs = sorted(
        (link_spec(every, stage) for stage in range(min(2, every.num_stages), every.num_stages + 1)),
        key=lambda spec: spec.nbytes,
    )
    spec = specs[len(specs) // 2]
    views, batch, *rest = spec.shape
    rows = max(min(batch, batch * LARGEST // spec.nbytes), 2)
    return [[views, count, *rest] for count in (1, rows)]


def _answers(questions: Sequence[Mapping[str, Any]], threads: int) -> list[dict[str, Any]]:
    """What the processes answer, one for each question.

    Raises:
        UserError: one of them reports a problem, or does not answer.
    """
    environment = process_environment(threads, len(questions))
    with ExitStack() as stack:
        processes = []
        for question in questions:
            process = subprocess.Popen(
                interpreter("launch.partition.pair_main"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            stack.callback(_end, process)
            processes.append(process)
            assert process.stdin is not None
            with suppress(OSError):  # it has ended, which the missing answer will show
                write_line(process.stdin.fileno(), question)
        return [_answer(process, question["limit"]) for process, question in zip(processes, questions, strict=True)]


def _answer(process: subprocess.Popen[bytes], limit: float) -> dict[str, Any]:
    assert process.stdout is not None
    found = next(iter(LineReader(process.stdout.fileno()).read(limit)), {"problem": "one of their processes ended"})
    if "problem" in found:
        raise UserError(f"links between two processes of this machine cannot be measured: {found['problem']}")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()
