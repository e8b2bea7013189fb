"""A worker process of a feed: makes the pieces it is told to, until its parent closes the pipe or dies.

Standard input brings a line of JSON to start with and then the numbers of each piece; answers leave, a JSON object a
line, by what was standard output. Pixels never travel: they are written into the shared memory of the ring.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import astuple

import torch

from pipeline.config import DataConfig
from pipeline.data.sets.datasets import open_dataset
from pipeline.errors import OnwardError, UserError
from workers.control.start_messages import FeedWorkerStart
from workers.feed.batch_plan import Chunk
from workers.feed.ring import Ring
from workers.feed.view_worker import ChunkMaker
from workers.feed.worker_process import STOP_SIGNALS
from workers.run.json_lines import read_line, write_line

REQUESTS = 0
"""Standard input."""


def main() -> int:
    """Work; returns the exit code."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the parent blocked them until here
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        _work(answers)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the parent has gone
            return 0
        raise
    return 0


def _work(answers: int) -> None:
    try:
        maker = _maker(FeedWorkerStart.from_message(read_line(REQUESTS)))
        requests = os.fdopen(os.dup(REQUESTS), "rb")
        write_line(answers, {"ready": True})
        while chunk := Chunk.read(requests):
            write_line(answers, {"done": [astuple(stand_in) for stand_in in maker.make(chunk)]})
    except OnwardError as error:
        write_line(answers, {"failed": str(error), "bad_input": isinstance(error, UserError)})
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc()
        write_line(answers, {"failed": f"{type(error).__name__}: {error}", "bad_input": False})


def _maker(start: FeedWorkerStart) -> ChunkMaker:
    if start.core is not None:
        with suppress(OSError):  # taken from the process meanwhile
            os.sched_setaffinity(0, {start.core})
    torch.set_num_threads(1)
    ring = Ring(start.ring, start.slot_bytes, start.workers)
    data = DataConfig.model_validate_json(start.data)
    images = open_dataset(data, "train", start.shared)
    return ChunkMaker(data, start.num_views, start.seed, images, ring, worker=start.worker)


def _end_with_parent() -> None:
    """Nothing is asked of the poll but the hang-up: it comes when the other end is closed, however that happened."""
    watch = select.poll()
    watch.register(REQUESTS, 0)
    watch.poll()
    os._exit(0)  # in the middle of an image, or of a read that hangs


if __name__ == "__main__":
    sys.exit(main())
