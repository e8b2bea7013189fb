"""Computes steps of a run again, in a folder that is thrown away: `onward resume` goes on from a copy of a snapshot.

So it is the code that trained the run which computes again, with its configuration but for what watches and keeps.
Files are linked where the folder is on the same file system, and copied otherwise.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from launch.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from launch.prepare.run_dir import write_config
from launch.verifying.intervals import Interval
from pipeline.config import AlarmsConfig, Config, TraceConfig
from pipeline.config.evaluation import OnlineConfig
from pipeline.errors import TrainingError, UserError
from workers.observing.history_file import first_and_last_step
from workers.run.environment import interpreter, process_environment, without_launcher
from workers.run.files import RunDir

Runtime = Literal["serial", "pipelined"]
POLL_SECONDS, LOOK_SECONDS, KILL_SECONDS = 0.05, 0.5, 20.0


def runtime_of(config: Config) -> Runtime:
    """How a run is computed again with the same bits: in one process, unless that would round in another way."""
    settings = [config.stage(index) for index in range(1, config.num_stages + 1)]
    # What replicas sum up they round in another way, and DeepSpeed is never in one process with another stage.
    apart = any(stage.replicas > 1 or stage.engine.kind != "torch" for stage in settings)
    return "pipelined" if apart else "serial"


@dataclass(frozen=True)
class Rerun:
    """How a run is computed again.

    Args:
        run: its directory, which stays as it is.
        config: of the run, with the overrides of this machine.
        runtime: in one process, or in one for each stage.
        trusted: as `onward resume --trust`.
        progress: called with the steps that are done, and their number.
    """

    run: RunDir
    config: Config
    _: KW_ONLY
    runtime: Runtime
    trusted: bool = False
    progress: Callable[[int, int], None] = lambda done, count: None

    @contextmanager
    def computed(self, interval: Interval, every: int) -> Iterator[RunDir]:
        """A run directory that has the interval computed again, and the state at its end as a snapshot.

        Args:
            interval: of the run.
            every: `digests.every`.

        Raises:
            UserError: it cannot be begun here: the data have changed, a device is missing.
            TrainingError: it failed.
        """
        with tempfile.TemporaryDirectory(prefix="onward-verify-") as folder:
            again = RunDir(Path(folder) / "run")
            again.logs.mkdir(parents=True)
            self._begin(again, interval, every)
            self._train(again, interval)
            yield again

    def configured(self, last: int, every: int) -> Config:
        """The configuration with which steps until `last` are computed."""
        config = self.config
        # A block that has its turn after another one must begin it at the same step, so that run is stopped instead; it
        # may have come further by then, to snapshots that must not replace the one that is compared.
        steps = config.train.max_steps if config.mode == "sequential" else last
        alone = {k: own.model_copy(update={"replicas": None}) for k, own in config.stages.items()}
        in_one = {"replicas": 1, "processes": None, "stages": alone} if self.runtime == "serial" else {}
        quiet = config.evaluation.model_copy(update={"linear_probe": False, "online": OnlineConfig()})
        return config.model_copy(
            update={
                **in_one,
                "runtime": self.runtime,
                "train": config.train.model_copy(update={"max_steps": steps}),
                "snapshots": config.snapshots.model_copy(update={"every": last, "keep_last": 1, "keep_every": last}),
                "digests": config.digests.model_copy(update={"every": every}),
                "metrics": config.metrics.model_copy(update={"enabled": False, "every": 1}),
                "link": config.link.model_copy(update={"kind": "auto"}),
                "evaluation": quiet,
                "alarms": AlarmsConfig(enabled=False),
                "trace": TraceConfig(),
                "trackers": (),
                "restart": "none",
                "faults": (),
            }
        )

    def _begin(self, again: RunDir, interval: Interval, every: int) -> None:
        write_config(again, self.configured(interval.last, every))
        if self.run.data_index.is_file():
            _link(self.run.data_index, again.data_index)
        if self.run.initial.is_dir():
            _link_folder(self.run.initial, again.initial)
        if interval.first:
            _link_folder(self.run.snapshot(interval.first), again.snapshot(interval.first))

    def _train(self, again: RunDir, interval: Interval) -> None:
        flags = ["-q", *(["--trust"] if self.trusted else [])]
        with tempfile.TemporaryFile() as out:
            child = subprocess.Popen(
                interpreter("onward", "resume", str(again.path), *flags),
                env=without_launcher(process_environment(self.config.threads)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                stopped = self._follow(child, again, interval)
            finally:
                _end(child)
            out.seek(0)
            output = out.read().decode(errors="replace")
        if child.returncode and not (stopped and child.returncode == EXIT_INTERRUPTED):
            raise _failure(output, child.returncode, interval)

    def _follow(self, child: subprocess.Popen[bytes], again: RunDir, interval: Interval) -> bool:
        """Until it has ended; returns whether it was stopped behind the interval."""
        stopped, looked = False, 0.0
        while child.poll() is None:
            time.sleep(POLL_SECONDS)
            if time.monotonic() - looked < LOOK_SECONDS:
                continue
            looked, lines = time.monotonic(), first_and_last_step(again.metrics)
            done = interval.first if lines is None else int(lines[1]["step"]) + 1
            self.progress(min(done, interval.last) - interval.first, interval.last - interval.first)
            if done >= interval.last and self.config.mode == "sequential" and not stopped:
                child.send_signal(signal.SIGTERM)
                stopped = True
        return stopped


def _failure(output: str, code: int, interval: Interval) -> Exception:
    lines = [line for line in output.splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else f"exit code {code}"
    )
    text = f"steps {interval.first} to {interval.last} cannot be computed again: {said.removeprefix('error:').strip()}"
    return UserError(text) if code == EXIT_BAD_INPUT else TrainingError(text)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Of a command that is interrupted: what it has begun ends, too."""
    if child.poll() is not None:
        return
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(KILL_SECONDS)
    if child.poll() is None:
        child.kill()
        child.wait(KILL_SECONDS)


def _link_folder(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.is_symlink():
            _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    """No link can change what it leads to: files of a run are replaced, never written in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
