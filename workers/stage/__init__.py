"""A training process: its life cycle, its training loop, and its heartbeat.
- `device_clock.py`: where the time of a training process goes, by the clock of its device
- `flops.py`: floating-point operations of a stage's steps, and the peak of known GPUs
- `heartbeat.py`: listens to the coordinator and sends heartbeats, in threads beside the training loop of a process
- `plain_steps.py`: floating-point operations of compiled stages: of the same steps as they are written
- `process.py`: the life cycle of one training process: connect, build the stages, open the links, train, save, exit
- `throttling.py`: why a GPU runs slower than it could, where NVIDIA's management library says so
- `worker.py`: the training loop of one process: receive, forward, send, update, report
"""
