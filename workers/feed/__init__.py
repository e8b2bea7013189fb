"""The feed: batches of augmented images, made ahead of time in the order of the plan by processes or a thread.

- `affinity.py`: which core each feed worker is kept on, where there are cores to spare
- `backpressure.py`: what the consumer of a feed tells the thread that fills it: a slot is free again, or stop
- `batch_plan.py`: what a feed has to make: the images of every step, where their views go, and the pieces that
  workers are given
- `feed.py`: the batches of a run, augmented ahead of time, in the order of the plan, from any step on
- `first_stage.py`: what comes before the first stage besides a link: a feed of its own (`data.feed: stages`), and
  colours on its device
- `pool.py`: the worker processes of a feed: who makes what, and who takes over from those that die
- `ring.py`: the memory that a feed makes batches in: slots that are used over and over, and a line of numbers for
  each worker
- `view_worker.py`: makes the views of a piece of a batch; the same code in a worker process as in the feed's own
  thread
- `worker_main.py`: a worker process of a feed: makes the pieces it is told to, until its parent closes the pipe or
  dies
- `worker_process.py`: one worker process of a feed, as its parent sees it: what it was given, what it says, how it
  ended
"""

from workers.control.feed_report import FeedMeasures
from workers.feed.feed import Feed, FeedBatch

__all__ = ["Feed", "FeedBatch", "FeedMeasures"]
