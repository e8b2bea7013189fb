"""A training process: its life, its loop, and its sign of life.

- `heartbeat.py`: a training process's ear for the coordinator, and its pulse: one thread that hears, one that tells
  it is alive
- `process.py`: the life of one training process: connect, build its stages, open the links, work, save, leave
- `worker.py`: the loop of one training process: receive, forward, send onward, learn, report
"""
