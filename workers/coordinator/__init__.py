"""The coordinator process: sends batches, collects reports, detects failures, restarts stages or ends the run.
- `batch_sender.py`: the coordinator's sending thread: sends batches with their headers into the first link, which
  blocks it when full
- `coordinator.py`: the coordinator: numbers the steps, sends batches to stage 1, collects the stages' reports, and
  ends the run
- `finish.py`: the end of a run: merges the backbone, evaluates every block, writes the report and prints the table
- `health.py`: finds training processes that hang: a missing heartbeat, or a step that takes too long
- `monitor.py`: the coordinator's main thread: receives messages of all training processes, and decides what to do
  about failures
- `observers.py`: everything that observes one run, in either runtime, from before its data set is opened to after its
  report
- `recorder.py`: joins the reports of all stages, step by step, and hands them to the file and to all who observe the
  run
- `restarts.py`: bookkeeping of restarted stages: which processes are awaited, how often, and when to give up
- `silent_hosts.py`: whole hosts that are silent, among processes that are: one cause for all processes of a host
- `stacks.py`: has a process that hangs, and its neighbours, write down what their threads are doing
- `step_lines.py`: writes `metrics.jsonl`: a line for every step, or one for several
- `supervisor.py`: the process that started the processes of a run, as the coordinator sees it
- `throughput.py`: how fast a run is, over its last steps, and how long it will still take
"""
