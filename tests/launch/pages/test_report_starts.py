"""What a report says of where a run came from, and of how exact its probes are, whatever stands in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.pages.page import page
from launch.pages.run_record import read_run
from launch.pages.starts import SHOWN_STARTS, start_facts
from launch.pages.tables import exactness, probe_table
from launch.prepare.provenance import record_start
from launch.prepare.run_dir import read_config
from tests.launch.pages.reported import write_run


def start(**more: Any) -> dict[str, Any]:
    commit = {"repository": "/home/me/work", "commit": "0123456789abcdef", "changed": True, "holds": ["my_losses"]}
    module = {"name": "my_losses", "source": "/home/me/work/my_losses.py", "file": "modules/my_losses.py",
              "sha256": "f" * 64, "why_not": None}  # fmt: skip
    return {"time": "2026-11-30T22:36:43+00:00", "step": 0, "command": ["onward", "train", "a b.yaml"],
            "folder": "/home/me/work", "host": "node1", "hosts": ["node1", "node2"], "system": "Linux 6.1 x86_64",
            "versions": {"python": "3.11.7", "torch": "2.14.1"}, "commits": [commit], "modules": [module],
            **more}  # fmt: skip


def test_every_start_says_when_where_and_of_what() -> None:
    first, second = start_facts([start(), start(step=1200, commits=[], modules=[])])
    assert first.title == "Start 1, 2026-11-30T22:36:43+00:00"
    assert first.facts == {
        "command": "onward train 'a b.yaml'",
        "in": "/home/me/work",
        "host": "node1, node2",
        "system": "Linux 6.1 x86_64",
        "versions": "python 3.11.7, torch 2.14.1",
        "commits": "0123456789ab, with changes in /home/me/work (my_losses)",
        "modules of the user": "my_losses (modules/my_losses.py, SHA-256 ffffffffffff)",
    }
    assert second.title == "Start 2, after 1,200 steps, 2026-11-30T22:36:43+00:00"
    assert (second.facts["commits"], second.facts["modules of the user"]) == ("no repository", "none")
    many = start_facts([start()] * (SHOWN_STARTS + 3))
    assert [facts.title.split(",")[0] for facts in many][:1] == ["Start 4"]
    assert len(many) == SHOWN_STARTS


def test_the_page_shows_the_starts_and_escapes_what_is_in_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2)
    record_start(read_config(run.path), run)
    document = json.loads(run.provenance.read_text())
    evil = "<script>alert(1)</script>\x1b[2J"
    wrong = dict.fromkeys(start(), evil) | {"commits": [{"commit": evil, "holds": 3}, evil], "modules": [{"file": 7}]}
    run.provenance.write_text(json.dumps(document | {"starts": [*document["starts"], wrong, {"versions": [evil]}, 3]}))
    html = page(read_run(run.path), [])
    assert html.count("<summary>Start ") == 3
    assert "torch 2" in html
    assert evil not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;" in html


def test_a_gain_that_may_be_chance_is_marked_on_the_page() -> None:
    rows = [{"trunk": 0.70, "expansion": None}], [{"trunk": 0.71, "expansion": None}]
    report = {"untrained": rows[0], "trained": rows[1], "probe_images": {"test": 280}}
    table = probe_table(report)
    assert table is not None
    assert table.rows[0][1:4] == ("70.0", "71.0", "~+1.0")
    assert (
        exactness(report)
        == "One standard error is 2.7 points on 280 test images; ~ marks a gain within two of its own."
    )
    table = probe_table(report | {"probe_images": {"test": 2_800_000}})
    assert table is not None
    assert table.rows[0][3] == "+1.0"
    for unknown in ({}, {"probe_images": 3}, {"probe_images": {"test": True}}, {"probe_images": {"test": 0}}):
        old = {"untrained": rows[0], "trained": rows[1], **unknown}
        assert exactness(old) == ""
        table = probe_table(old)
        assert table is not None
        assert table.rows[0][3] == "+1.0"
