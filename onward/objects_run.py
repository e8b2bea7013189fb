"""A run with Python objects: `runtime: serial`, in a thread of this process.

It takes the way of every other run, checks and run directory and all, but for the account of its memory, which another
process would make. Signals stay the program's; Ctrl-C in `wait` stops it, after a snapshot.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch

from launch.errors import EXIT_FAILED
from launch.failure import exit_code, write_failure
from launch.prepare.placement import Placement
from launch.prepare.prepared_run import PreparedRun, prepare_run
from launch.prepare.recompute import undecided
from onward.objects import Objects
from onward.run import Run
from pipeline import config as settings
from pipeline.errors import ConfigError, OnwardError
from pipeline.validation.combinations import check_combinations
from workers.control.failures import RunFailed, failure_report
from workers.coordinator.finish import measure_the_rest
from workers.observing.terminal.console import Console, PrintableConsole
from workers.observing.terminal.verbosity import Verbosity, attached
from workers.observing.trace_file import merge_trace
from workers.run.compute import set_up_compute, settings_kept
from workers.serial_run import StopRequest, run_serial


class ThreadRun(Run):
    """A run in a thread of this process.

    Args:
        prepared: the run.
        objects: that its configuration names.
        console: where it prints.
        held: closed when it has ended: the claim of the directory, the names of the objects.
    """

    def __init__(self, prepared: PreparedRun, objects: Objects, console: Console, held: ExitStack) -> None:
        super().__init__(prepared.run.path, prepared.start_step)
        self._prepared, self._objects, self._console, self._held = prepared, objects, console, held
        self._stop, self._code = StopRequest(), 0
        self._thread = threading.Thread(target=self._train, name=f"onward {self.path.name}")
        self._thread.start()

    @property
    def exit_code(self) -> int | None:
        """See `Run.exit_code`."""
        return None if self._thread.is_alive() else self._code

    @property
    def given(self) -> Mapping[str, object]:
        """See `Run.given`; without classes and functions that have names."""
        return {keyword: value for keyword, value in self._objects.given.items() if keyword in self._objects.only_here}

    def _ask(self) -> None:
        self._stop.requested = True

    def _error(self) -> OnwardError | None:
        return None

    def _train(self) -> None:
        with self._held, settings_kept():
            try:
                self._code = EXIT_FAILED  # if even the record cannot be written
                self._work()
                self._code = 0
            except BaseException as error:
                self._failed(error)
            finally:
                merge_trace(self._prepared.run)

    def _work(self) -> None:
        config, run = self._prepared.config, self._prepared.run
        devices = [placement.device for placement in self._prepared.placements]
        if not self._prepared.finished:
            run_serial(
                config, run, devices, self._console, self._prepared.start_step, failed=self._failed, stop=self._stop
            )
        elif self._prepared.unmeasured:
            set_up_compute(config)
            measure_the_rest(config, run, torch.device(devices[0]), self._console)

    def _failed(self, error: BaseException) -> None:
        """Write down why the run has failed."""
        failure = error.failure if isinstance(error, RunFailed) else failure_report("the serial run", None, error)
        self._code = exit_code(failure)
        if not self._prepared.run.failure.exists():
            write_failure(self._prepared.run, failure)


def start_with_objects(
    config: settings.Config, name: str, notes: Sequence[str], objects: Objects, progress: bool
) -> Run:
    """Start a run in which Python objects stand for what the configuration names.

    Args:
        config: of the run, in one process.
        name: of the configuration.
        notes: sentences for the user.
        objects: with the names that the configuration has.
        progress: print what the command prints.

    Raises:
        ConfigError, UserError: as `onward.train`.
    """
    with ExitStack() as stack:
        stack.callback(objects.release)
        stack.enter_context(objects.meant())
        config = _adapted(config)
        check_combinations(config)
        prepared = stack.enter_context(prepare_run(config, name, _decided, notes))
        return ThreadRun(prepared, objects, _console(progress), stack.pop_all())


def _adapted(config: settings.Config) -> settings.Config:
    """The same run without what other processes would do: workers of the data loader, a tried step."""
    if config.data.workers:
        remedy = "Give data__workers=0; a data set by name may have them"
        raise ConfigError("data.workers", f"are {config.data.workers}, and other processes lack the objects", remedy)
    if config.determinism.check == "auto":
        return config.model_copy(update={"determinism": config.determinism.model_copy(update={"check": False})})
    return config


def _decided(
    config: settings.Config, placements: Sequence[Placement], resumed: bool
) -> tuple[settings.Config, list[str]]:
    """What `launch.plan.fitting.fit` does, without an account: nothing may be left open."""
    if undecided(config):
        problem = "auto needs an account of the memory, which another process makes, and that lacks the objects"
        raise ConfigError("memory.recompute", problem, "Give none, units or views")
    return config, []


def _console(progress: bool) -> Console:
    if progress:
        moves = attached()
        return Console(PrintableConsole(force_terminal=moves, force_interactive=moves), Verbosity.asked())
    return Console(PrintableConsole(file=io.StringIO(), force_terminal=False), Verbosity.QUIET)
