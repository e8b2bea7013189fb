"""Who runs it: the processes of a run and what passes between them.

- `control/`: what processes tell the coordinator: the channel, what travels on it, and how it is checked
- `coordinator/`: the coordinator's process: sends batches, gathers reports, notices what is in trouble, ends the run
- `determinism/`: tries one step of a stage twice before it is trained: exactness rests on library kernels, and some
  do not repeat
- `evaluating/`: what `onward evaluate` does: features of a trained network, and everything that is measured on them
- `feed/`: the feed: batches of augmented images, made ahead of time in the order of the plan by processes or a thread
- `links/`: links carry batches from one stage to the next; one file a kind, and what they share
- `observing/`: what is seen of a run while it trains: metrics, alarms, the live page, traces, trackers; none of it
  changes a bit
- `run/`: what every process of a run has: its directory, its threads, its signals, its surroundings
- `snapshots/`: the state of a run on disk: snapshots while it trains, weights at its end
- `stage/`: a training process: its life, its loop, and its sign of life
- `topology/`: which process trains what, and how the processes of a run find each other
- `serial_run.py`: the whole run in one process: the same feed, stages, numbers and files as the pipeline, no links
- `wiring.py`: which links a process opens: from every process of the unit before, to every process of the unit after
"""
