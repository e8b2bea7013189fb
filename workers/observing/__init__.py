"""Monitoring of a run while it trains: metrics, alarms, the live page, traces, trackers. None changes the results.

Observers run in the coordinator's process and receive the same four calls (`observer`). If one of them fails, the run
goes on without it.

- `live/`: the live page of a run: its history, the server of the coordinator, and the page itself in `static/`
- `terminal/`: what the terminal or a log shows of a run. The package imports nothing, so the command line starts
  quickly
- `trackers/`: further outputs for the measurements of a run: TensorBoard, or a class of the user's own
- `active_alarms.py`: which alarms are on: kept once per run, read by everything that raises or shows them
- `alarms.py`: detects seven problems of a run; each is reported once when it begins and once when it ends
- `amounts.py`: what one step added to the totals of a run: derived here, once, and written into each line as `added`
- `backlog.py`: which stage the run is waiting for, and for how long: the first one that has not reported the
  oldest unfinished batch
- `catalogue.py`: every exported metric: the registry, the documentation and the dashboards are made from this list
- `downsampler.py`: a table that never grows beyond a fixed number of rows, however many steps a run has
- `event_log.py`: writes `events.jsonl`: alarms, restarts, snapshots and notes, one line each
- `goodput.py`: the share of a run's wall time in which new steps were made, and what the rest of it went to
- `headroom.py`: how far a run is from its limit, and why: images/s as measured, as predicted, and the bound
- `headroom_model.py`: computes that from what the steps have come to, with the throughput model
- `headroom_watch.py`: keeps it up to date: every few seconds while a run trains, and once for its report
- `history_file.py`: the one reader of a run's `metrics.jsonl` and `events.jsonl`, while it trains, after it, or after a
  crash
- `line_numbers.py`: a line of `metrics.jsonl` as plain numbers by stage and name: what was measured, and what the step
  has added
- `memory.py`: memory of a stage's process: resident, and allocated by PyTorch on the GPU
- `metrics.py`: the Prometheus metrics of a run, made from the catalogue; the coordinator serves them
- `observer.py`: the observer interface: the start of a run, every finished step, events, the end; isolation of errors
- `repeated_steps.py`: whether steps that are done again have the digests that they had (`digests.every`)
- `standard_error.py`: how far an accuracy may be off because it was measured on so many test images and no more
- `step_sums.py`: what steps have come to: images, and the time of every stage, by the last stage that had work
- `trace.py`: records what a process does as slices of time, in its own part of the run's trace
- `trace_file.py`: joins all parts into one file in Chrome's trace event format, for Perfetto and chrome://tracing
- `trace_flows.py`: the arrows of a trace, which follow every batch through the pipeline; derived from recorded slices
- `trace_part.py`: the part of a trace that one process writes: its format, writing and reading
- `wait_reasons.py`: why the slowest process of a run does not compute all the time
"""

from workers.observing.observer import Event, Observer, Observers, RunFacts

__all__ = ["Event", "Observer", "Observers", "RunFacts"]
