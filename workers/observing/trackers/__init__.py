"""Other places that the measurements of a run go to: TensorBoard, and whatever a user's own class reaches.

- `base.py`: what a tracker is: four calls, all of one run, all from one thread of their own
- `delivery.py`: one tracker in a thread of its own, so that however slow or broken it is, training does not notice
- `starting.py`: the trackers of a run: which there are, whether they can be started, and all of them as one observer
- `tensorboard.py`: the measurements of a run as TensorBoard's files, in `RUN/tensorboard`
"""

from workers.observing.trackers.base import Tracker
from workers.observing.trackers.starting import check_trackers, start_trackers

__all__ = ["Tracker", "check_trackers", "start_trackers"]
