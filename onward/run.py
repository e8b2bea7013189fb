"""A run that a Python program has started: wait for it, follow it, stop it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Literal, Self

from launch.errors import EXIT_INTERRUPTED
from launch.failure import read_failure
from launch.prepare.run_dir import read_config
from onward.config import Config
from onward.notebook import Display
from onward.steps import Step, StepFile, follow
from pipeline.errors import OnwardError, TrainingError, UserError
from workers.run.files import RunDir, read_object, read_report

State = Literal["running", "done", "stopped", "failed"]
POLL_SECONDS = 0.05


class Run(ABC):
    """A run: in processes of its own, or, with Python objects, in this one.

    Args:
        path: of its run directory.
        start_step: the first step that it trains, counted from 0.
    """

    def __init__(self, path: Path, start_step: int = 0) -> None:
        self.path = path
        self.config = Config.of(read_config(path))
        """Resolved, as in `config.yaml`."""
        self._run, self._start_step, self._asked = RunDir(path), start_step, threading.Event()
        self._newest, self._seen = StepFile(self._run.metrics, start_step - 1), list[Step]()

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """As of the command: 0 done, 1 failed, 2 bad input, 130 interrupted; None while it runs."""

    @abstractmethod
    def _ask(self) -> None:
        """Ask it to stop: after a snapshot, the second time at once."""

    @abstractmethod
    def _error(self) -> OnwardError | None:
        """What ended it, where the run directory has no record of it."""

    @property
    def given(self) -> Mapping[str, object]:
        """Python objects that it trains with, by the keywords of `onward.load`."""
        return {}

    @property
    def state(self) -> State:
        """`stopped` is a run that was asked to stop, with a snapshot where one was due; `onward.resume` goes on."""
        code = self.exit_code
        if code is None:
            return "running"
        return "done" if code == 0 else "stopped" if code == EXIT_INTERRUPTED else "failed"

    @property
    def page(self) -> str | None:
        """Address of the live page, while the run trains; None before and where there is none."""
        try:
            found = (read_object(self._run.coordinator) or {}).get("page")
        except OSError:
            return None
        return found if isinstance(found, str) and self.exit_code is None else None

    def steps(self) -> Iterator[Step]:
        """Every step as it happens, until the run ends; an error of the run is raised after the last one."""
        yield from follow(self._run.metrics, lambda: self.exit_code is not None, self._start_step - 1)
        self._raise()

    def wait(self, timeout: float | None = None) -> Self:
        """Until the run has ended; in a notebook, with a table of its progress.

        Ctrl-C, and the stop button of a notebook, stop the run after a snapshot; the second time at once.

        Args:
            timeout: seconds to wait; without limit if None.

        Raises:
            TrainingError: the run failed, or was stopped by somebody else; the message is that of the command.
            UserError: the data or a tracker could not be used.
            TimeoutError: it still runs after `timeout` seconds.
            KeyboardInterrupt: after the run has stopped.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        interrupted = False
        with Display(self) as display:
            while True:
                try:
                    if self.exit_code is not None:
                        break
                    display.refresh()
                    time.sleep(POLL_SECONDS)
                except KeyboardInterrupt:
                    interrupted = True
                    self._asked.set()
                    self._ask()
                if deadline is not None and time.monotonic() > deadline and not interrupted:
                    raise TimeoutError(f"the run in {self.path} still trains after {timeout:g} s")
        if interrupted:
            raise KeyboardInterrupt
        self._raise()
        return self

    def stop(self) -> Self:
        """Stop the run after a snapshot, as Ctrl-C does on the command line, and wait for it; errors as `wait`.

        Without `snapshots.every` too: a run that is asked to stop takes one.
        """
        self._asked.set()
        if self.exit_code is None:
            self._ask()
        return self.wait()

    @property
    def last_step(self) -> Step | None:
        """The newest step; None before the first."""
        self._seen = [*self._seen, *self._newest.new()][-1:]
        return self._seen[-1] if self._seen else None

    def _raise(self) -> None:
        """What the run ended with, unless that was asked for."""
        code = self.exit_code
        if not code or (code == EXIT_INTERRUPTED and self._asked.is_set()):
            return
        if (error := self._error()) is not None:
            raise error
        failure = read_failure(self._run)
        if failure is None:
            problem = f"the run in {self.path} ended with exit code {code} and could not write down why"
            raise TrainingError(f"{problem}; see {self._run.logs}")
        kind: type[OnwardError] = UserError if failure["kind"] == "bad_input" else TrainingError
        raise kind(str(failure["message"]))

    def __repr__(self) -> str:
        return f"<onward.Run {self.path} {self.state}{self._at()}>"

    def _at(self) -> str:
        step = self.last_step
        return "" if step is None else f" after {step.step + 1} steps"

    def _repr_html_(self) -> str:
        """A small table: state, step, speed and the loss of every block."""
        step, page = self.last_step, self.page
        rows = [("run", escape(str(self.path))), ("state", self.state)]
        if page is not None:
            rows.append(("page", f'<a href="{escape(page)}">{escape(page)}</a>'))
        if step is not None:
            rows.append(("step", f"{step.step + 1} (epoch {step.epoch + 1} of {self.config.train.epochs})"))
            rows.append(("images/s", f"{step.images_per_second:.1f}"))
            losses = ", ".join("-" if loss is None else f"{loss:.4g}" for loss in step.losses.values())
            rows.append(("loss by block", losses))
            if step.eta_seconds is not None and self.exit_code is None:
                minutes, seconds = divmod(round(step.eta_seconds), 60)
                rows.append(("left", f"{minutes}:{seconds:02d}"))
        if accuracies := self._accuracies():
            rows.append(("linear probe by block, %", accuracies))
        return f"<table>{''.join(f'<tr><th>{name}</th><td>{text}</td></tr>' for name, text in rows)}</table>"

    def _accuracies(self) -> str:
        rows = (read_report(self._run) or {}).get("trained") if self.exit_code == 0 else None
        return ", ".join(f"{100 * row['trunk']:.1f}" for row in rows) if isinstance(rows, list) else ""
