"""The feed: batches of augmented images, made ahead of time in the order of the plan by processes or a thread."""

from workers.control.feed_report import FeedMeasures
from workers.feed.feed import Feed, FeedBatch

__all__ = ["Feed", "FeedBatch", "FeedMeasures"]
