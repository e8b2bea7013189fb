"""`onward check`: makes every check that `train` makes, and says what the run amounts to and what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launch.commands.image_scan import scan_images
from launch.hosts.start_plan import StartPlan
from launch.plan.account import DataFacts, LinkAccount, RunAccount
from launch.plan.child import AccountProcess
from launch.plan.data_facts import facts_of, facts_without_plan
from launch.plan.devices import CPU, DeviceAccount
from launch.plan.fitting import check_decided, decisions, device_lines, place_on, sizes_on
from launch.plan.gpus import Gpu
from launch.prepare.link_kind import with_link
from launch.prepare.placement import Placement, count_gpus, place
from launch.prepare.preflight import RunPlan
from launch.prepare.prepared_run import dry_run
from launch.prepare.recompute import undecided
from launch.results.memory_table import account_lines, table
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import ConfigError, UserError, printable
from pipeline.shapes import boundary_shapes
from pipeline.validation.loading import dump_config
from workers.topology.processes import training_processes

MANY_GPUS = 1 << 20
"""More than any run asks for."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `onward check` has found; as text for people, as a document for programs.

    Args:
        config: of the run.
        plan: what it will train on; None where only the memory was asked for.
        account: what it needs; None where that cannot be computed, which a note says.
        devices: what it takes of every device.
        given_notes: sentences of who read the configuration.
        found_notes: sentences of this check.
        start: how it is started on several hosts; None if that was not asked for.
    """

    config: Config
    plan: RunPlan | None
    account: RunAccount | None
    devices: tuple[DeviceAccount, ...]
    given_notes: tuple[str, ...] = ()
    found_notes: tuple[str, ...] = ()
    start: StartPlan | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """All sentences for the user."""
        return (*self.given_notes, *self.found_notes)

    @property
    def document(self) -> dict[str, Any]:
        """All of it as values that JSON has: `config`, `plan`, `account`, `devices`, and `start` if asked for."""
        found = None if self.account is None else {**asdict(self.account), "fits": self.account.host.fits}
        held = [{**device.to_message(), "needs": device.needs, "fits": device.fits} for device in self.devices]
        plan = None if self.plan is None else _plan(self.config, self.plan)
        document = {"config": self.config.model_dump(mode="json"), "plan": plan, "account": found, "devices": held}
        if self.start is not None:
            document["start"] = self.start.to_message(_links(self.account))
        return document

    def __str__(self) -> str:
        """YAML that `train` reads, with comments on stages, processes, steps, images and memory; or the memory."""
        held = [line for device in self.devices for line in device_lines(device)]
        needs = [] if self.account is None else account_lines(self.account, _on_several(self.start))
        start = _start_lines(self.account, self.start)
        if self.plan is None:
            return "\n".join([*needs, *held, *start, *(f"note: {note}" for note in self.found_notes)])
        lines = [*_stages(self.config, self.plan), *_processes(self.config), *_amounts(self.config, self.plan)]
        lines += ["", *needs] if needs else []
        lines += [*held, *start]
        lines += [""] if needs and self.notes else []
        lines += [f"note: {printable(note)}" for note in self.notes]
        return dump_config(self.config) + "\n".join(f"# {line}".rstrip() for line in lines)


def check_run(
    config: Config,
    notes: Sequence[str],
    gpu: Gpu | None = None,
    headers: bool = False,
    decode: bool = False,
    start: StartPlan | None = None,
) -> Checked:
    """Check a run without starting it, and find what it needs.

    Args:
        config: of the run.
        notes: sentences for the user, to be shown before those that are found here.
        gpu: of which to say whether they hold it, instead of the devices of this machine.
        headers: also read the header of every image file, and print which are broken.
        decode: also decode every image, likewise.
        start: how it is started on several hosts, which is to be shown.

    Raises:
        ConfigError, UserError: whatever `train` would refuse, but for what does not fit its devices, which is said.
    """
    opened: list[Splits] = []

    def look(splits: Splits) -> None:
        opened.append(splits)
        scan_images(splits, headers, decode)

    with AccountProcess() as process:
        here = None if start is None else max(len(host.ranks) for host in start.hosts)
        plan = dry_run(config, look, here)
        placements = plan.placements if gpu is None else place_on(config, gpu)
        found = [*plan.notes]
        devices: tuple[DeviceAccount, ...] = ()
        account: RunAccount | None = None
        try:
            facts = facts_of(plan, opened[0])
            decided, devices, account = _account(process, _linked(config, start), placements, facts, gpu)
            found += decisions(config, decided)
        except UserError as problem:
            if gpu is not None:
                raise UserError(f"--gpu: {problem}. Check without it") from None
            check_decided(config, placements, str(problem))
            found.append(f"{problem}. The rest was checked")
    return Checked(
        config=config,
        plan=plan,
        account=account,
        devices=devices,
        given_notes=tuple(notes),
        found_notes=tuple(found),
        start=start,
    )


def check_memory(
    config: Config, notes: Sequence[str], gpu: Gpu | None = None, start: StartPlan | None = None
) -> Checked:
    """What a run needs, without its data, and where it asks for GPUs that are not here also without those.

    Arguments as `check_run`.

    Raises:
        UserError: an operation of a network or a loss of the user's own cannot be computed without memory.
    """
    placements = _placements(config) if gpu is None else place_on(config, gpu)
    with AccountProcess() as process:
        try:
            facts = facts_without_plan(config)
            decided, devices, account = _account(process, _linked(config, start), placements, facts, gpu)
        except UserError as problem:
            raise UserError(f"--memory: {problem}. Check without --memory") from None
    return Checked(
        config=config,
        plan=None,
        account=account,
        devices=devices,
        given_notes=tuple(notes),
        found_notes=tuple(decisions(config, decided)),
        start=start,
    )


def _account(
    process: AccountProcess, config: Config, placements: Sequence[Placement], data: DataFacts, gpu: Gpu | None
) -> tuple[Config, tuple[DeviceAccount, ...], RunAccount]:
    """The run with what it leaves open decided, an account for each GPU, and what it needs. Raises `UserError`."""
    sizes = sizes_on(config, placements, gpu)
    if gpu is None and sizes is None and not count_gpus():  # a run for GPUs that are not here
        if undecided(config):
            raise UserError("memory.recompute=auto: how much a GPU has is not known. Ask about one with --gpu")
        sizes = {}
    decided, devices, account = process.account(config, placements, data, sizes)
    if gpu is None:  # what the account says of the host is enough
        devices = tuple(device for device in devices if device.device != CPU)
    return decided, devices, account


def _placements(config: Config) -> tuple[Placement, ...]:
    try:
        return place(config, count_gpus())
    except ConfigError:
        return place(config, MANY_GPUS)


def _on_several(start: StartPlan | None) -> bool:
    return start is not None and len(start.hosts) > 1


def _linked(config: Config, start: StartPlan | None) -> Config:
    """The run with the kind of link that its hosts have."""
    return with_link(config, on_one_host=not _on_several(start))


def _links(account: RunAccount | None) -> Sequence[LinkAccount]:
    return () if account is None else account.links


def _start_lines(account: RunAccount | None, start: StartPlan | None) -> list[str]:
    return [] if start is None else ["", *map(printable, start.lines(_links(account)))]


def _plan(config: Config, plan: RunPlan) -> dict[str, Any]:
    """What `_stages`, `_processes` and `_amounts` say, for programs."""
    shapes = boundary_shapes(config)[1:]
    stages = [
        {"stage": placement.stage, "units": placement.units, "devices": placement.devices, "output": shape}
        for placement, shape in zip(plan.placements, shapes, strict=True)
    ]
    processes = [] if config.in_one_process else [process.name for process in training_processes(config)]
    return {
        "stages": stages,
        "processes": processes,
        "images": plan.num_images,
        "broken_images": plan.num_broken,
        "classes": plan.num_classes,
        "test_images": plan.num_test_images,
        "steps_per_epoch": plan.steps_per_epoch,
        "steps": plan.total_steps,
    }


def _stages(config: Config, plan: RunPlan) -> list[str]:
    """A table with the columns stage, device, units, output shape."""
    shapes = boundary_shapes(config)[1:]
    axes = {5: "[V, B, C, H, W]", 4: "[V, B, N, D]", 3: "[1, B, numbers of all views]"}[len(shapes[-1])]
    rows = [("stage", "device", "units", f"output {axes}")]
    for placement, shape in zip(plan.placements, shapes, strict=True):
        units = placement.units[0] if len(placement.units) == 1 else f"{placement.units[0]} to {placement.units[-1]}"
        rows.append((str(placement.stage), ", ".join(placement.devices), units, str(list(shape))))
    return table(rows)


def _processes(config: Config) -> list[str]:
    if config.in_one_process:
        return ["one process trains all stages"]
    processes = training_processes(config)
    names = ", ".join(f"{process.rank}: {process.name}" for process in processes)
    return [f"processes by rank (torchrun --nproc-per-node={len(processes)}): {names}"]


def _amounts(config: Config, plan: RunPlan) -> list[str]:
    steps = f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all"
    classes = f" of {plan.num_classes} classes" if plan.num_classes else ""
    tests = "" if plan.num_test_images is None else f"; {plan.num_test_images} test images"
    return [
        f"{plan.num_images - plan.num_broken} images{classes}{tests}",
        f"batches of {config.data.batch_size}: {steps}",
    ]
