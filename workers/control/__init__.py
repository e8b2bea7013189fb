"""Messages between the processes of a run: the control channel, the records that are sent, and their validation.
- `acceptor.py`: accepts connections to the coordinator at any time of a run, and authenticates them with the key of
  the run
- `channel.py`: the control channel: small messages between the coordinator and its stages, over one socket per stage
- `failures.py`: finds the root cause among the failures that the processes of a run report
- `feed_report.py`: statistics of a feed, for the metrics, `report.json` and the advice at the end of a run
- `shares.py`: what the time of a stage is spent on. Does not import torch
- `start_messages.py`: what every process is started with: one record per kind of process, sent as JSON and checked by
  the reader
- `step_report.py`: the measurements that a stage sends to the coordinator after every step, as a JSON object
- `transfer.py`: whole files over a connection of their own: in pieces, with a digest at the end, sent again where
  something failed
- `transfer_server.py`: the coordinator's end of that
- `validation.py`: turns a JSON object from another process into a dataclass, after checking every field. Does not
  import torch
"""
