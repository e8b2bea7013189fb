"""What is seen of a run while it trains: metrics, alarms, the live page, traces, trackers; none of it changes a bit.

Everything here runs in the coordinator's process and is told the same four things (`observer`). It may fail; the run
goes on without it.

- `live/`: the live page of a run: its history, the server of the coordinator, and the page itself in `static/`
- `terminal/`: what a person at a terminal sees of a run, and what a log keeps of it. Imports nothing: the command
  line is quick
- `trackers/`: other places that the measurements of a run go to: TensorBoard, and whatever a user's own class reaches
- `active_alarms.py`: which alarms are on: kept once for a run, and read by all who show or raise them
- `alarms.py`: watches a run for five things that go wrong, and says each once when it begins and once when it is over
- `amounts.py`: what one step added to the totals of a run: derived here, once, and written into each line as `added`
- `backlog.py`: which stage the run is waiting for, and for how long: the first that has not reported the oldest
  unfinished batch
- `catalogue.py`: every metric that a run exports: the one list that the registry, the documentation and the
  dashboards are made from
- `downsampler.py`: a table that never grows beyond a fixed number of rows, however many steps a run has
- `event_log.py`: writes `events.jsonl`: what happens beside the steps, a line each; there is rarely more than one in
  a minute
- `history_file.py`: the one reader of a run's `metrics.jsonl` and `events.jsonl`, while it trains, after it, or after a
  crash
- `line_numbers.py`: a line of `metrics.jsonl` as plain numbers by stage and name: what was measured, and what the step
  has added
- `memory.py`: how much memory the process of a stage holds, as the operating system and CUDA's allocator count it
- `metrics.py`: the Prometheus metrics of a run, on a registry of their own, made from the catalogue; the coordinator
  serves them
- `observer.py`: what an observer of a run is told: how it begins, every finished step, what happens in between, how
  it ends
- `trace.py`: what a process is doing when: slices of time, written to its own part of the run's trace now and then
- `trace_file.py`: one trace of all parts: Chrome's trace event format, which Perfetto and chrome://tracing open
- `trace_flows.py`: the arrows of a trace, which follow every batch through the pipeline; found in what was recorded,
  not recorded
- `trace_part.py`: a part of a trace: the file that one process writes while it runs, and what is read of it
  afterwards
"""

from workers.observing.observer import Event, Observer, Observers, RunFacts

__all__ = ["Event", "Observer", "Observers", "RunFacts"]
