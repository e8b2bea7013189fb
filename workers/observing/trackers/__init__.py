"""Other places that the measurements of a run go to: TensorBoard, and whatever a user's own class reaches."""

from workers.observing.trackers.base import Tracker
from workers.observing.trackers.starting import check_trackers, start_trackers

__all__ = ["Tracker", "check_trackers", "start_trackers"]
