"""The live page of a run: its history, the server of the coordinator, and the page itself in `static/`.

- `answers.py`: how each request is answered: the page, its data as JSON or as a stream of events, the metrics, or why
  not
- `connection_limits.py`: how many connections are served at once, and for how long one may take to send its request
- `current_state.py`: what is true of a run at this moment: its place, its pace, how every stage spends its time, which
  alarms are on
- `document.py`: what the server sends to a page: the whole history, or what is new, as JSON in small pieces
- `history.py`: what the live page shows of a run: a bounded history of every number, what is true now, and what has
  happened
- `page_files.py`: the files of the page, read once: only these are ever served, whatever path is asked for
- `page_server.py`: the socket that browsers and Prometheus connect to, and what the threads of all their requests
  share
- `server.py`: the coordinator's one HTTP server: the live page, its data, and the metrics for Prometheus
"""

from workers.observing.live.history import History
from workers.observing.live.server import LiveServer

__all__ = ["History", "LiveServer"]
