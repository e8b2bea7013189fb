"""The feed: batches of augmented images, made ahead of time in the order of the plan by processes or a thread."""

from workers.feed.feed import Feed, FeedBatch
from workers.feed.measures import FeedMeasures

__all__ = ["Feed", "FeedBatch", "FeedMeasures"]
