"""The processes of a run and what passes between them.
- `control/`: messages between the processes of a run: the control channel, the records that are sent, and their
  validation
- `coordinator/`: the coordinator process: sends batches, collects reports, detects failures, restarts stages or ends
  the run
- `determinism/`: checks before training that a step is deterministic: computes it twice, because some library kernels
  are not
- `evaluating/`: what `onward evaluate` does: features of a trained network, and everything that is measured on them
- `feed/`: the feed (data loader): augmented batches, prepared ahead of time in a fixed order by worker processes or a
  thread
- `links/`: links carry batches from one stage to the next: one file per kind of link, and the parts that they share
- `observing/`: what is seen of a run while it trains: metrics, alarms, the live page, traces, trackers; none of it
  changes a bit
- `replaying/`: what `onward replay` does: one step of one stage computed again, and everything that can be seen of it
- `run/`: what every process of a run shares: run directory, threads, signals, environment, private folders
- `snapshots/`: the state of a run on disk: snapshots (checkpoints) during training, weights at the end
- `stage/`: A training process: its life cycle, its training loop, and its heartbeat
- `throughput/`: how fast a pipeline is, by a model of its protocol
- `topology/`: which process trains which stages, and how the processes of a run connect
- `weights/`: weights that come from elsewhere: read, recognised by their names, fitted to the stages of a run
- `serial_run.py`: A whole run in one process, without links: the same feed, stages, results and files as the pipeline
- `wiring.py`: opens the links of a process: from the processes of the previous stage group, to those of the next
"""
