"""How fast the feed makes batches where nobody waits for anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from pipeline.config import Config
from pipeline.errors import OnwardError, UserError
from workers.feed import Feed

WARM = 3
"""Batches before those that are timed: the workers start, and those that were made meanwhile are taken."""


def measured_feed(config: Config, seconds: float, now: Callable[[], float] = time.monotonic) -> float:
    """Seconds of the feed for one image with all of its views: all workers together, beside nothing else.

    Args:
        config: of the run; where the resolution grows, the views are those of the end.
        seconds: that it may take, where three batches take less.
        now: a clock.

    Raises:
        UserError: the images are not there, or cannot be read.
    """
    data = config.data.model_copy(update={"progressive": None})
    train = config.train.model_copy(update={"max_steps": None})
    ends = now() + seconds
    try:
        with closing(Feed(config.model_copy(update={"data": data, "train": train}))) as feed:
            batches = iter(feed)
            for _ in range(min(WARM, feed.total_steps - 1)):
                next(batches)
            began, made = now(), 0
            for _ in batches:
                made += 1
                if now() > ends:
                    break
            return (now() - began) / (made * config.data.batch_size)
    except OnwardError as error:
        remedy = "Give images that are on this machine (data.name, data.root), or plan without --measure"
        raise UserError(f"the feed cannot be measured: {error}. {remedy}") from None
