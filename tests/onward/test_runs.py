"""Runs from Python: the numbers of the command, exceptions with its sentences, stopping, going on, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import onward
from tests.onward.tiny import TINY, tiny
from tests.recovery import fault, pause
from tests.runs import ROOT, train
from tests.waiting import wait_until
from workers.run.files import RunDir, read_report

pytestmark = pytest.mark.processes
LONGER = {"train.max_steps": 16}
"""So that not all batches are on their way when a stage waits in step 3."""


def digest(path: Path) -> str:
    return str((read_report(RunDir(path)) or {})["final_digest"])


def test_a_run_from_python_in_a_thread_is_the_run_of_the_command(tmp_path: Path) -> None:
    assert train(tmp_path, "metrics.enabled=false").returncode == 0
    found: list[Any] = []

    def work() -> None:
        run = onward.train(tiny(tmp_path / "own"), wait=False)
        found.append(run)
        found.append([step.step for step in run.steps()])
        found.append(run.wait().state)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(240)
    run, steps, state = found
    assert (steps, state) == (list(range(6)), "done")
    assert digest(run.path) == digest(tmp_path / "run")
    assert "done after 6 steps" in repr(run)
    assert "<td>done</td>" in run._repr_html_()
    assert (run.exit_code, run.page) == (0, None)


def test_a_stopped_run_has_a_snapshot_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    assert train(tmp_path / "whole", "train.max_steps=16", "runtime=serial", "metrics.enabled=false").returncode == 0
    go = tmp_path / "go"
    config = tiny(tmp_path / "run", link={"depth": 1})
    run = onward.train(config, overrides=LONGER, wait=False, faults=[_parsed(pause(go, 2, 3))])
    first = next(run.steps())
    assert (first.step, set(first.losses)) == (0, {1, 2, 3, 4})
    stopper = threading.Thread(target=run.stop, daemon=True)
    stopper.start()
    wait_until(lambda: run._asked.is_set())
    go.touch()
    stopper.join(240)
    assert run.state == "stopped"
    assert list((run.path / "snapshots").iterdir()), "without snapshots.every, too"
    resumed = onward.resume(run, faults=[], runtime="serial")
    assert digest(resumed.path) == digest(tmp_path / "whole" / "run")


def test_a_run_that_fails_raises_the_sentence_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(onward.TrainingError, match=r"^stage 2 failed at step 2: "):
        onward.train(tiny(tmp_path / "run"), faults=[_parsed(fault("raise", 2, 2))])
    with pytest.raises(
        onward.ConfigError, match=r"^run_dir: '.*' already holds a run with another configuration: seed"
    ):
        onward.train(tiny(tmp_path / "run"), seed=5)
    with pytest.raises(onward.UserError, match="is not a run"):
        onward.resume(tmp_path)


def test_the_end_of_a_program_ends_its_run_with_a_snapshot(tmp_path: Path) -> None:
    """As a kernel of a notebook that crashes: nobody asks the run to stop, and nobody is there to see it."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    program = tmp_path / "program.py"
    lines = ["import onward, time",  # no `if __name__`: nothing of it is imported again
             "run = onward.train('tiny.yaml', run_dir='run', train__epochs=1000, train__max_steps=None, wait=False)",
             "next(run.steps())", "print(run.pid, flush=True)", "time.sleep(600)"]  # fmt: skip
    program.write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    assert [path.name for path in (tmp_path / "run" / "snapshots").glob("*/manifest.json")] == ["manifest.json"]


def _parsed(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)
