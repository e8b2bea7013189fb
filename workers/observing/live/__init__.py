"""The live page of a run: its history, the server of the coordinator, and the page itself in `static/`.

- `answers.py`: the request handler: the page, its data as JSON or as server-sent events, the metrics, or an error
- `connection_limits.py`: how many connections are served at once, and for how long one may take to send its request
- `current_state.py`: the run right now: step, throughput, how every stage spends its time, active alarms
- `document.py`: the JSON that the server sends: the whole history, or what is new, in small pieces
- `history.py`: the data of the live page: a bounded history of every number, the current state, and the events
- `page_files.py`: the files of the page, read once; no other file is ever served
- `page_server.py`: the HTTP server's socket and threads, and the state that its requests share
- `server.py`: the coordinator's one HTTP server: the live page, its data, and the metrics for Prometheus
"""

from workers.observing.live.history import History
from workers.observing.live.server import LiveServer

__all__ = ["History", "LiveServer"]
