"""What became of a run, by its lock and the files that it ends with: running, done, failed, interrupted or stopped."""

from __future__ import annotations

from dataclasses import dataclass

from launch.failure import read_failure
from launch.prepare.run_lock import is_running
from workers.run.files import RunDir


@dataclass(frozen=True)
class RunOutcome:
    """The state of a run.

    Args:
        word: `running`, `done`, `interrupted`, `failed` or `stopped`.
        text: one sentence.
    """

    word: str
    text: str


def run_outcome(run: RunDir) -> RunOutcome:
    """The state of a run; raises `OSError` if its lock cannot be read."""
    if is_running(run):
        return RunOutcome("running", "It is still running; this is how far it had come when this page was made.")
    if (failure := read_failure(run)) is not None:
        word = "interrupted" if failure.get("kind") == "interrupted" else "failed"
        return RunOutcome(word, str(failure.get("message") or "It gave no reason."))
    if run.report.is_file():
        return RunOutcome("done", "It was trained to its end.")
    return RunOutcome("stopped", "It ended without a message: its processes were killed, or the machine stopped.")
