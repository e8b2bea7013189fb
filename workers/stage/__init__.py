"""A training process: its life cycle, its training loop, and its heartbeat.
- `device_clock.py`: where the time of a training process goes, by the clock of its device
- `flops.py`: floating-point operations of a stage's steps, and the peak of known GPUs
- `heartbeat.py`: listens to the coordinator and sends heartbeats, in threads beside the training loop of a process
- `process.py`: the life cycle of one training process: connect, build the stages, open the links, train, save, exit
- `worker.py`: the training loop of one process: receive, forward, send, update, report
"""
