"""Further outputs for the measurements of a run: TensorBoard, or a class of the user's own.

- `base.py`: the tracker interface: four calls, all from one thread
- `delivery.py`: runs a tracker in a thread of its own, so that a slow or broken one does not affect the training
- `starting.py`: checks and starts the trackers of a run, and combines them into one observer
- `tensorboard.py`: the measurements of a run as TensorBoard's files, in `RUN/tensorboard`
"""

from workers.observing.trackers.base import Tracker
from workers.observing.trackers.starting import check_trackers, start_trackers

__all__ = ["Tracker", "check_trackers", "start_trackers"]
