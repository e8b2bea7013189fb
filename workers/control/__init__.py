"""What processes tell the coordinator: the channel, what travels on it, and how it is checked.

- `acceptor.py`: receives whoever connects to the coordinator, at any time of a run, and lets only those in who have
  its key
- `channel.py`: the control channel: small messages between the coordinator and its stages, over one socket per stage
- `failures.py`: finds the one cause among the many signs of a failed run
- `feed_report.py`: what a feed did and what it cost: for the metrics, the report and the advice at the end of a run
- `start_messages.py`: what every process is started with: one record per kind of process, sent as JSON and checked by
  the reader
- `step_report.py`: what a stage tells the coordinator after every step; a plain dictionary on the wire
- `validation.py`: turns what another process said into a dataclass, after checking every field; no torch here
"""
