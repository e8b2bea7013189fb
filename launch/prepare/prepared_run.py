"""The one way from a configuration to a run that may start, which ends in one record.

    claim the directory                                   run_lock
    read the configuration of the run in it               resume
    check configuration, machine and data                 preflight
    index the data, or find the snapshot to continue from data_index, resume
    fit the weights that it begins with                   initial_weights
    decide what is left open, or refuse what cannot fit   recompute, `Fit`
    write the run, or roll it back                        run_dir, resume
    add this start to where the run came from             provenance

Each step reads once and passes on what it has read. `onward train`, `onward resume`, rank 0 of torchrun and a serial
run without the command line take this way; `onward check` makes the same checks and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from launch.prepare.data_index import keep_index, make_index
from launch.prepare.initial_weights import prepare_initial_weights, with_digests
from launch.prepare.link_kind import with_link
from launch.prepare.longer import trains_longer
from launch.prepare.placement import Placement, count_gpus, place
from launch.prepare.preflight import RunPlan, preflight
from launch.prepare.provenance import record_start
from launch.prepare.recompute import as_before
from launch.prepare.resume import earlier_run, find_resume_point, roll_back
from launch.prepare.run_dir import begin_run, check_run_dir, claim_run, read_config
from launch.prepare.run_lock import REMEDY, Claim, check_not_running
from launch.prepare.thread_advice import ranks_here
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import ConfigError
from workers.observing.terminal.verbosity import say
from workers.run.environment import PREPARED, first_number
from workers.run.files import RunDir

Fit = Callable[[Config, Sequence[Placement], bool], tuple[Config, list[str]]]
"""From a run, its placements and whether it goes on with an earlier one, to the run with what it leaves open decided
and sentences for the user; raises `UserError` where it cannot fit its devices. See `launch.plan.fitting.fit`."""
RELEASE_SECONDS = 10.0
"""How long a coordinator may outlive the process that started it."""
RESTART_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
START_STEP = "ONWARD_START_STEP"
"""The variable with the first step to train, in the environment of the process of a serial run."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that may start: it passed all checks, and its directory is claimed and written.

    Args:
        config: of the run, with its `run_dir` filled in; of a finished run, that it was trained with.
        run: its directory.
        placements: one per stage, in order.
        start_step: the first step to train, counted from 0.
        finished: it has been trained to its end.
        unmeasured: it has, and was ended while its blocks were measured, which is all that is left to do.
        lock: descriptor of the open lock, for processes that are to inherit it; empty where there is none.
    """

    config: Config
    run: RunDir
    placements: tuple[Placement, ...]
    start_step: int = 0
    _: KW_ONLY
    finished: bool = False
    unmeasured: bool = False
    lock: tuple[int, ...] = ()

    def environment(self) -> dict[str, str]:
        """What `handed_over` reads, for the process of a serial run."""
        return {PREPARED: str(self.run.path), START_STEP: str(self.start_step)}


def handed_over() -> PreparedRun | None:
    """The run that the command line has prepared for this process; None if it has to prepare one itself."""
    path = os.environ.get(PREPARED)
    if path is None:
        return None
    config = read_config(Path(path))
    placements = place(config, count_gpus())
    return PreparedRun(config, RunDir(Path(path)), placements, int(os.environ.get(START_STEP, "0")))


@contextmanager
def prepare_run(
    config: Config,
    name: str,
    fit: Fit,
    notes: Sequence[str] = (),
    on_one_host: bool = True,
    hosts: Sequence[str] = (),
) -> Iterator[PreparedRun]:
    """Claim the directory of a run, check everything and write what makes it a run, or take up the run that is there.

    A context manager, which holds the lock. If anything is wrong, the directory is left as it was.

    Args:
        config: of the run.
        name: of the configuration; names the directory where `run_dir` is not given.
        fit: decides what the configuration leaves open, and raises where it cannot fit its devices.
        notes: sentences for the user, to be printed before those that are found here.
        on_one_host: whether all processes of the run are on this host; decides what `link.kind: auto` stands for.
        hosts: the names of all, where there are several.

    Raises:
        ConfigError: a value that does not fit this machine, the data or the run that is there; or the directory cannot
            be used.
        UserError: data that are not there or cannot be read.
    """
    config = with_link(config, on_one_host)
    # A coordinator that torchrun or Slurm could not reach may still be ending.
    restarted = any(first_number(os.environ.get(count, ""), otherwise=0) for count in RESTART_COUNTS)
    with claim_run(config, name, RELEASE_SECONDS if restarted else 0.0) as claim:
        prepared, own_notes = _prepare(config, claim, fit, on_one_host)
        if not prepared.finished:
            own_notes += _recorded(prepared, hosts)
        for note in (*notes, *claim.notes, *own_notes):
            say(note, important=prepared.finished)
        if not prepared.finished:
            claim.keep()
        yield prepared


def _recorded(prepared: PreparedRun, hosts: Sequence[str]) -> list[str]:
    try:
        devices = [device for placement in prepared.placements for device in placement.devices]
        return record_start(prepared.config, prepared.run, prepared.start_step, hosts, devices)
    except OSError as error:
        problem = f"'{error.filename or prepared.run.path}' cannot be written ({error.strerror})"
        raise ConfigError("run_dir", problem, REMEDY) from None


def dry_run(
    config: Config, scan: Callable[[Splits], None] = lambda splits: None, local_processes: int | None = None
) -> RunPlan:
    """Make the checks of `prepare_run` and write nothing.

    Args:
        config: of the run.
        scan: reads more of the images; called before the data set is checked.
        local_processes: training processes on a host; all of them if not given.

    Raises:
        ConfigError, UserError: as `prepare_run`.
    """
    check_run_dir(config)
    run = None if config.run_dir is None else RunDir(Path(config.run_dir))
    if run is not None and earlier_run(config, run) is not None:
        check_not_running(run.path)
        notes = []
    else:
        run = None
        notes = prepare_initial_weights(with_digests(config), None)
    plan = preflight(config, Splits(config.data), run, scan, sample=True, local_processes=local_processes)
    return replace(plan, notes=(*notes, *plan.notes))


def _prepare(config: Config, claim: Claim, fit: Fit, on_one_host: bool) -> tuple[PreparedRun, list[str]]:
    """The run, and sentences for the user. The names of all images are freed when it returns."""
    run, splits = claim.run, Splits(config.data)
    earlier = earlier_run(config, run)
    config = with_digests(config, earlier)
    plan = preflight(
        config, splits, None if earlier is None else run, local_processes=None if on_one_host else ranks_here()
    )
    point = None if earlier is None else find_resume_point(run, trains_longer(config, earlier))
    fitting: list[str] = []
    if point is None or not point.finished:
        config, fitting = fit(config if earlier is None else as_before(config, earlier), plan.placements, bool(earlier))
    plan = replace(plan, notes=(*plan.notes, *fitting))
    here = config.model_copy(update={"run_dir": str(run.path)})
    prepared = PreparedRun(here, run, plan.placements, lock=claim.held)
    if earlier is None or point is None:
        index, notes = make_index(config, splits)
        notes += prepare_initial_weights(config, run)
        run.failure.unlink(missing_ok=True)  # of a start that was refused
        begin_run(config, run.path)
        keep_index(index, run)
        return prepared, [*plan.notes, *notes]
    if point.finished:
        prepared = replace(prepared, config=earlier, finished=True, unmeasured=point.unmeasured)
    else:
        roll_back(config, run, point.steps)
        prepared = replace(prepared, start_step=point.steps)
        if not run.data_index.is_file():  # of a version that wrote none
            keep_index(make_index(config, splits)[0], run)
    return prepared, [*plan.notes, *point.notes]
