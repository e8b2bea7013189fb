"""Links and sums of gradients, timed between two processes of this machine that do what two stages do.

    process 0    send | wait until it is taken            send | ...
    process 1              receive, and check it                 receive | ...

Messages of two sizes are timed, an image and a batch: from both follows what a message costs, and what a byte costs, as
it travels: with `link.codec`, of what is encoded.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any

from launch.partition.costs import LinkCost
from pipeline.config import Config
from pipeline.errors import UserError
from workers.links.factory import Kind
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import read_line, write_line
from workers.run.polling import readable
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


def measured_pair(finest: Config, kinds: Sequence[Kind], devices: Sequence[str], seconds: float) -> PairCosts:
    """Time links, and the sum of gradients over two replicas.

    Args:
        finest: of `cut_everywhere`; a cut of medium size is taken.
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
            "config": finest.model_dump_json(),
            "folder": folder,
            "key": os.urandom(32).hex(),
            "links": [(kind, _shapes(finest)) for kind in kinds],
            "sums": sums,
            "seconds": seconds / (2 * len(kinds) + sums),
            "limit": START_SECONDS + seconds,
        }
        sender, receiver = _answers(
            [{**common, "rank": rank, "device": devices[rank]} for rank in range(2)], finest.threads
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


def _shapes(finest: Config) -> list[list[int]]:
    """Of a message of one image, and of one of a batch, at a cut of medium size."""
    specs = sorted(
        (link_spec(finest, stage) for stage in range(min(2, finest.num_stages), finest.num_stages + 1)),
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
    environment, processes = process_environment(threads, len(questions)), []
    with ExitStack() as stack:
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
        pipes = [process.stdout.fileno() for process in processes if process.stdout is not None]
        return _read(pipes, questions[0]["limit"])


def _read(pipes: Sequence[int], limit: float) -> list[dict[str, Any]]:
    """The answer from each pipe; the first problem ends the wait, as others wait for the process that has it."""
    answers: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + limit
    while len(answers) < len(pipes):
        ready = readable([pipe for pipe in pipes if pipe not in answers], max(deadline - time.monotonic(), 0.0))
        problem = "" if ready else f"they take longer than {limit:g} s"
        for pipe in ready:
            try:
                answers[pipe] = read_line(pipe)
            except EOFError:
                answers[pipe] = {"problem": "one of their processes ended"}
            problem = problem or answers[pipe].get("problem", "")
        if problem:
            remedy = "Plan without --measure, or give another link.kind"
            raise UserError(f"links between two processes of this machine cannot be measured: {problem}. {remedy}")
    return [answers[pipe] for pipe in pipes]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()
