"""The feed (data loader): augmented batches, prepared ahead of time in a fixed order by worker processes or a thread.
- `affinity.py`: chooses the core that each feed worker is pinned to, where there are spare cores
- `ahead.py`: batches in host memory are taken one ahead, and copied to the GPU while it computes on the one before
- `backpressure.py`: backpressure between the consumer of a feed and the thread that fills it: credits for free slots,
  and stopping
- `batch_plan.py`: the plan of a feed: the images of every step, the layout of their views in a slot, and the chunks
  for workers
- `device_slots.py`: the memory of a GPU that they are copied into: two slots, each with pinned memory, and events
- `feed.py`: the batches of a run, augmented ahead of time, in the order of the plan, from any step on
- `first_stage.py`: input of the first stage besides its link: its own feed (`data.feed: stages`), and augmentation on
  its device
- `pool.py`: makes batches by worker processes or in the calling thread; replaces worker processes that die
- `ring.py`: the shared memory that a feed makes batches in: a ring of slots, and a cache line of counters per worker
- `view_worker.py`: makes the views of a chunk; used by worker processes and by the thread of a feed without any
- `worker_main.py`: main module of a feed worker process: makes chunks until its parent closes the pipe or dies
- `worker_process.py`: A feed worker process seen from its parent: assigned chunks, answers, and how it ended
"""

from workers.control.feed_report import FeedMeasures
from workers.feed.feed import Feed, FeedBatch

__all__ = ["Feed", "FeedBatch", "FeedMeasures"]
