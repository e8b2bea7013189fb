"""Whether the devices hold a run, asked before it starts: decides `memory.recompute: auto`, refuses what cannot fit.

Where a generous bound fits, which is so for every small run, nothing is computed. Otherwise the account is made in a
forked process with a limit of time: it loads torch, and its fake tensors start threads of autograd, after which no
process that is forked from it could run a backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from math import prod
from typing import Any

from launch.plan.bounds import upper_bound
from launch.plan.deciding import decided_run
from launch.plan.devices import (
    CPU,
    CUBLAS,
    CUDA_CONTEXT,
    ON_CPU,
    PROCESS,
    DeviceAccount,
    DeviceProcess,
    device_processes,
)
from launch.plan.gpus import Gpu, available_memory, sizes_of
from launch.plan.memories import ProcessMemories
from launch.plan.remedies import GIB, Devices, SearchEnded, remedies
from launch.prepare.placement import Placement, place
from launch.prepare.recompute import undecided, with_recompute
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.shapes import boundary_shapes
from workers.determinism.child import run_in_child
from workers.topology.processes import stage_name, training_processes

SECONDS = 600.0
"""For an account, which takes one or two seconds for each stage on a quiet machine, after torch was loaded."""


class AccountError(Exception):
    """The account cannot be made: an operation of a user's own network has no fake form, or time is up."""


def fit(
    config: Config,
    placements: Sequence[Placement],
    resumed: bool,
    force: bool = False,
    several_hosts: bool = False,
) -> tuple[Config, list[str]]:
    """The run with what it leaves open decided, and sentences for the user.

    Args:
        config: of the run.
        placements: one per stage, in order.
        resumed: it goes on with one that was begun, of which only what leaves the numbers alone may change.
        force: it is started although it does not fit.
        several_hosts: each process is assumed to have a device of its own, as large as the smallest of this host.

    Raises:
        UserError: it cannot fit; the message says what would.
    """
    left = undecided(config)
    if several_hosts:
        placements = on_devices_of_their_own(placements)
    everyone = device_processes(config, placements)
    sizes = sizes_of({process.device for process in everyone} - ({CPU} if several_hosts else set()))
    lavish = with_recompute(config, dict.fromkeys(left, "none"))
    if (force and not left) or (sizes is not None and surely_fits(lavish, everyone, sizes)):
        return lavish, []
    try:
        decided, accounts = planned(config, placements, sizes)
    except AccountError as error:
        if left:
            raise UserError(_undecided(str(error))) from None
        return config, [f"not known whether it fits: {error}"]
    notes = decisions(config, decided)
    full = [account for account in accounts if not account.fits]
    if not full:
        return decided, notes
    if force:
        return decided, [*notes, *(f"{needs_in_words(account)}; started with --force" for account in full)]
    has = {account.device: account.has for account in accounts}
    problem = "; ".join(map(needs_in_words, full))
    raise UserError(f"{problem}. {what_would_do(decided, placements, has, resumed)}; --force starts it all the same")


def check_decided(config: Config, placements: Sequence[Placement], problem: str) -> None:
    """For a run of which there is no account: raises `UserError` if `train` needs one, to decide what is left open."""
    left = undecided(config)
    everyone = device_processes(config, placements)
    sizes = sizes_of({process.device for process in everyone}) if left else None
    lavish = with_recompute(config, dict.fromkeys(left, "none"))
    if left and (sizes is None or not surely_fits(lavish, everyone, sizes)):
        raise UserError(_undecided(problem))


def _undecided(problem: str) -> str:
    return f"memory.recompute=auto: {problem}. Give none, units or views"


def on_devices_of_their_own(placements: Sequence[Placement]) -> list[Placement]:
    """The placements of a run whose processes do not share devices; those on a CPU are not told apart."""
    numbers = count()
    own = [[d if d == CPU else f"cuda:{next(numbers)}" for d in placement.devices] for placement in placements]
    return [replace(p, device=first, others=tuple(others)) for p, (first, *others) in zip(placements, own, strict=True)]


def planned(
    config: Config, placements: Sequence[Placement], sizes: Mapping[str, int] | None
) -> tuple[Config, tuple[DeviceAccount, ...]]:
    """The run with `memory.recompute: auto` decided, and an account for each device.

    Args:
        config: of the run.
        placements: one per stage, in order.
        sizes: bytes of each device; None to ask CUDA.

    Raises:
        AccountError: it cannot be computed.
    """

    def work() -> dict[str, Any]:
        decided, accounts = decided_run(config, placements, sizes, ProcessMemories())
        chosen = {str(index): decided.stage(index).memory.recompute for index in undecided(config)}
        held = [account.to_message() for account in accounts]
        return {"chosen": chosen, "rings": decided.link.device_to_device, "accounts": held}

    answer = _in_child(work)
    decided = with_recompute(config, {int(index): value for index, value in answer["chosen"].items()})
    link = decided.link.model_copy(update={"device_to_device": answer["rings"]})
    decided = decided.model_copy(update={"link": link})
    return decided, tuple(map(DeviceAccount.from_message, answer["accounts"]))


def place_on(config: Config, gpu: Gpu) -> tuple[Placement, ...]:
    """Where a run is placed on so many GPUs; where their number is not given, every process has one of its own.

    Raises:
        ConfigError: the configuration asks for one that is not among them.
    """
    stages = range(1, config.num_stages + 1)
    named = [config.stage(index).device.removeprefix("cuda:") for index in stages]
    processes = 1 if config.in_one_process else len(training_processes(config))
    return place(config, gpu.count or max([processes, *(int(name) + 1 for name in named if name.isdecimal())]))


def sizes_on(config: Config, placements: Sequence[Placement], gpu: Gpu | None) -> dict[str, int] | None:
    """Bytes of the devices of a run, which are those of this machine or such GPUs; None where CUDA has to be asked."""
    devices = {process.device for process in device_processes(config, placements)}
    if gpu is None:
        return sizes_of(devices)
    return {device: available_memory() if device == CPU else gpu.bytes for device in devices}


def what_would_do(
    config: Config, placements: Sequence[Placement], sizes: Mapping[str, int], resumed: bool = False
) -> str:
    """The changes with which a run fits that does not, in a sentence without its full stop."""

    def work() -> dict[str, Any]:
        try:
            return {"found": remedies(config, Devices(tuple(placements), sizes, ProcessMemories()), resumed)}
        except SearchEnded as ended:
            return {"found": [], "ended": str(ended)}

    try:
        answer = _in_child(work)
    except AccountError as error:
        return f"What would do is not known: {error}"
    if "ended" in answer:
        return f"What would do is not known: {answer['ended']}"
    found = answer["found"]
    if found:
        return f"Give {', or '.join(found)}"
    nothing = "no memory.recompute" if resumed else "no memory.recompute, no head.chunk, no batch"
    return f"Nothing was found that does ({nothing}). More blocks (model.cuts) or a smaller head need less"


def why_memory_ran_out(config: Config, placements: Sequence[Placement], stage: int) -> str:
    """What the account says of the device of a stage that has run out of memory, and what would need less.

    Where the account says that it fits, changes are named that need four fifths of what it says, or less.
    """
    device = next(m.device for m in device_processes(config, placements) if stage in m.stages)
    try:
        sizes = {device: (sizes_of({device}) or {}).get(device, 0)}
        _, (account,) = planned(config, placements, sizes)
    except AccountError as error:
        return f"There is no account of it: {error}"
    enough = {device: min(account.has or account.needs, account.needs * 4 // 5)}
    return f"By the account {needs_in_words(account)}. {what_would_do(config, placements, enough)}"


def needs_in_words(account: DeviceAccount) -> str:
    """What is needed of a device, what there is, and what makes it up."""
    return f"{_need(account)} ({_terms(account)})"


def device_lines(account: DeviceAccount) -> list[str]:
    """The same as a line with the verdict, and one with the parts."""
    verdict = "fits" if account.fits else "does not fit"
    return [f"{verdict}: {_need(account)}", f"  GiB: {_terms(account)}"]


def _need(account: DeviceAccount) -> str:
    who = " and ".join(account.processes) if len(account.processes) < 4 else f"{len(account.processes)} processes"
    verb = "needs" if len(account.processes) == 1 and who.startswith("stage ") else "need"
    has = f", which has {account.has / GIB:.2f} GiB" if account.has else ""
    return f"{who} {verb} {account.needs / GIB:.2f} GiB of {account.device}{has}"


def _terms(account: DeviceAccount) -> str:
    """The parts in GiB, the largest first, without those that round to nothing."""
    terms = sorted((term for term in account.terms if term.bytes >= 0.005 * GIB), key=lambda term: -term.bytes)
    if all(term.estimated for term in terms):
        return f"estimated {', '.join(f'{term.bytes / GIB:.2f} {term.name}' for term in terms)}"
    return ", ".join(f"{term.bytes / GIB:.2f} {term.name}{' (estimated)' * term.estimated}" for term in terms)


def decisions(config: Config, decided: Config) -> list[str]:
    """What was decided of what `config` leaves open, in at most two sentences."""
    found, values = [], {index: decided.stage(index).memory.recompute for index in undecided(config)}
    if len(set(values.values())) == 1 and len(values) == config.num_stages:
        found.append(f"memory.recompute=auto: {values[1]} for all stages")
    elif values:
        named = ", ".join(f"{value} for {stage_name(index)}" for index, value in values.items())
        found.append(f"memory.recompute=auto: {named}")
    if config.link.rings and not decided.link.rings:
        found.append("link.device_to_device=auto: false, as the GPUs do not hold the batches between stages as well")
    return found


def surely_fits(config: Config, everyone: Sequence[DeviceProcess], sizes: Mapping[str, int]) -> bool:
    """Whether even more than it will need does."""
    waiting = 4 * max(map(prod, boundary_shapes(config))) * (config.link.depth + 4)
    on_gpus = [process.device for process in everyone if process.device != CPU]
    senders = {device: len(on_gpus) - on_gpus.count(device) for device in sizes if device != CPU}
    needed = {device: CUDA_CONTEXT * senders.get(device, 0) for device in sizes}
    for process in [process for process in everyone if process.device in sizes]:
        bound = upper_bound(config, process.stages)
        if bound is None:
            return False
        needed[process.device] += (
            bound + bound // ON_CPU + waiting + (PROCESS if process.device == CPU else CUDA_CONTEXT + CUBLAS)
        )
    return all(needed[device] <= sizes[device] for device in sizes)


def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, computed in a forked process that prints nothing. Raises `AccountError`."""

    def quietly() -> dict[str, Any]:
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
        import torch

        torch.set_num_threads(1)  # those of a process that was forked may be gone
        return work()

    outcome = run_in_child(quietly, SECONDS)
    if outcome.result is None:
        late = f"the account of its memory took more than {SECONDS:.0f} s"
        killed = f"the process that computes what it needs was killed by signal {outcome.signal}"
        failed = f"it cannot be computed on tensors without memory ({outcome.error[:200]})"
        raise AccountError(late if outcome.late else killed if outcome.signal else failed)
    result: dict[str, Any] = outcome.result
    return result
