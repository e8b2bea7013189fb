"""The coordinator's process: sends batches, gathers reports, notices what is in trouble, ends the run.

- `batch_sender.py`: the coordinator's sending thread: batches into the first link, each with its header, held back by
  the link
- `coordinator.py`: the coordinator: numbers the steps, feeds stage 1, follows what the stages report, ends the run
- `finish.py`: the end of a run: join the backbone, measure every block, write the report, print the table
- `health.py`: which training process is alive: every one sends a sign of life, and says how long it has been
  computing
- `monitor.py`: the coordinator's main thread: hears every training process, and decides what happens when one is in
  trouble
- `observers.py`: everything that observes one run, in either runtime, from before its data set is opened to after its
  report
- `recorder.py`: joins the reports of all stages, step by step, and hands them to the file and to all who observe the
  run
- `restarts.py`: bringing single stages back: who is to come back from which step, how often already, and when to give
  up
- `throughput.py`: how fast a run is, over its last steps, and how long it will still take
"""
