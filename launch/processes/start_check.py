"""What the ranks on several hosts make sure of before anything is written and before any group of torch is made.

Every rank says what it knows, and all draw the same conclusion, in rounds through torchrun's store:

    1  every rank: its addresses, versions, configuration    do all run the same?
    2  every rank: which addresses of rank 0 it reaches,     which of them do all reach?
       and whether it sees rank 0's file                     (there the coordinator will listen)
    3  every rank: which neighbours it cannot reach          may the run start?
    4  where several hosts read images: digests of them      are they the same?

Nobody writes to the run directory but these small files, which rank 0 removes. Whoever reaches the store can make a run
end here, and nothing else: what decides what a rank trains is signed (`announcement.py`).
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from launch.errors import in_a_sentence
from launch.prepare.link_kind import with_link
from launch.prepare.ranks import check_processes
from launch.prepare.run_dir import check_run_dir
from launch.processes.missing_ranks import missing_in_words, named, why_it_ended
from launch.processes.presence import (
    OwnProblems,
    Presence,
    Problem,
    Reached,
    differences_from_first,
    in_words,
    own_versions,
    settings_of,
)
from launch.processes.rank_run import own_config
from launch.processes.same_data import DataSummary, differences, readers, summary_of
from launch.processes.shared_folder import (
    FolderNotSharedError,
    answer_mark,
    check_same_end,
    folder_above,
    nearest_folder,
    ranks_apart,
    remove_mark,
    who_keeps_the_run,
    write_mark,
)
from pipeline.config import Config
from pipeline.errors import UserError
from workers.run.files import RunDir
from workers.run.keys import fingerprint, given_key
from workers.topology.network import ProbeListener, candidates, reach_each, reason, use_interface_of
from workers.topology.processes import training_processes
from workers.topology.rendezvous import START_SECONDS
from workers.topology.torchrun import RankFailed, RanksApart, RanksMissing, RunGroup

ROUND_SECONDS = 60.0
"""Limit for the second and the third round; each takes a few seconds, more only on a very busy machine."""
OPEN_PORTS = "Open all ports between the hosts (firewall)"
NAME_ADDRESS = f"{OPEN_PORTS}, or name the address by network.address=ADDRESS or network.interface=NAME on that host"
SHARE = (
    "Mount the same folder on every host and give it as run_dir=FOLDER, the same on all, or give shared_run_dir=auto"
)
ONE_KEEPS = "Give another run_dir=FOLDER, or let this host be the first, which has rank 0"


class StartRefused(UserError):
    """The run cannot start; every rank raises it with the same text."""


@dataclass(frozen=True)
class Agreement:
    """What the ranks have found out together.

    Args:
        coordinator: address of the host of rank 0, by which all ranks reach it.
        own: address of this host, by which it reaches that one.
        first_host: name of the host of rank 0.
        apart: ranks that do not see the run directory of rank 0.
        hosts: name of the host of every rank.
    """

    coordinator: str
    own: str
    first_host: str
    apart: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()


def agree(
    group: RunGroup, arguments: list[str], say: Callable[[str], None], problem: UserError | None = None
) -> Agreement:
    """Make the checks together with all other ranks; every rank must call this, whatever has failed before.

    Args:
        group: the ranks.
        arguments: of the command line of this one.
        say: tells the user what is waited for.
        problem: why this rank cannot start.

    Raises:
        StartRefused: the run cannot start.
        RanksApart: a rank has not come.
        TrainingError: the store has ended.
    """
    with ExitStack() as stack:
        check = _StartCheck(group, say, stack)
        try:
            return check.run(arguments, problem)
        except RanksMissing as error:
            raise RanksApart(missing_in_words(group, error)) from None
        except RankFailed as error:
            raise StartRefused(str(error)) from None
        except StartRefused:
            raise
        except BaseException as error:
            group.fail(why_it_ended(group, error))
            raise


class _StartCheck:
    def __init__(self, group: RunGroup, say: Callable[[str], None], stack: ExitStack) -> None:
        self._group, self._say, self._stack = group, say, stack
        self._host = platform.node()
        self._presences: list[Presence] = []

    def run(self, arguments: list[str], problem: UserError | None) -> Agreement:
        presence, config = self._present(arguments, problem)
        given = self._group.gather("present", presence.to_message(), START_SECONDS, self._waiting)
        self._presences = [Presence.from_message(each) for each in given]
        first = self._presences[0]
        self._refuse_for(differences_from_first(self._presences))
        assert config is not None  # or there was a problem
        answers = self._group.gather("reached", self._reach(config).to_message(), ROUND_SECONDS, self._waiting)
        reached = [Reached.from_message(each) for each in answers]
        address = self._common_address(reached)
        problems = self._unreached(reached) if address is None else self._neighbours(config, reached, address)
        apart = self._apart(config, reached)
        problems += self._folders(config, reached, apart)
        own_problems = OwnProblems(problems=problems, apart=apart)
        given = self._group.gather("found", own_problems.to_message(), ROUND_SECONDS, self._waiting)
        found = [OwnProblems.from_message(each) for each in given]
        self._refuse_for([problem for each in found for problem in each.problems])
        assert address is not None
        self._compare_data(config)
        own = reached[self._group.rank].ways[address]
        use_interface_of(own)
        self._group.leave("check")
        ranks = tuple(found[0].apart)
        if ranks and self._group.rank == 0:
            hosts = [self._presences[rank].host for rank in ranks]
            self._say(who_keeps_the_run(hosts, self._host, bool(first.key)))
        return Agreement(address, own, first.host, ranks, tuple(each.host for each in self._presences))

    def _present(self, arguments: list[str], problem: UserError | None) -> tuple[Presence, Config | None]:
        """This rank, as the others shall see it, and its configuration unless that is the problem."""
        group, first = self._group, self._group.rank - self._group.local_rank
        here = Presence(rank=group.rank, host=self._host, first=first, here=group.local_world_size)
        try:
            if problem is not None:
                raise problem
            config = with_link(own_config(arguments)[0], self._group.on_one_host)
            check_processes(config, self._group, arguments)
            addresses = candidates(config.network, self._group.own_address)
            here = replace(here, key=fingerprint(given_key()))
            if here.rank == 0:
                check_run_dir(config)
                here = self._with_mark(here, config)
            named = config.network.address or config.network.interface
            probes = self._stack.enter_context(ProbeListener(addresses[:1] if named else []))
            settings, digest = settings_of(config)
            here = replace(here, versions=own_versions(), settings=settings, digest=digest)
            return replace(here, addresses=addresses, port=probes.port, token=probes.token), config
        except Exception as error:  # whatever it is, the others wait for this rank
            return replace(here, problem=in_a_sentence(error)), None

    def _with_mark(self, here: Presence, config: Config) -> Presence:
        run_dir = _run_dir(config)
        folder, above = nearest_folder(run_dir)
        try:
            mark = write_mark(folder, secrets.token_hex(8))
        except OSError as error:
            raise UserError(f"'{folder}' cannot be written ({error.strerror}). {SHARE}") from None
        self._stack.callback(remove_mark, mark)
        return replace(here, run_dir=str(run_dir), above=above, mark=mark.name)

    def _reach(self, config: Config) -> Reached:
        first, ways, unreached = self._presences[0], {}, []
        tried = reach_each((address, first.port, first.token) for address in first.addresses)
        for address in first.addresses:
            own = tried[address, first.port, first.token]
            if isinstance(own, OSError):
                unreached.append(reason(own, address, first.port))
            else:
                ways[address] = own
        answer = Reached(ways=ways, unreached=unreached)
        if self._group.rank == 0:
            return answer
        run_dir = _run_dir(config) if config.run_dir is not None else Path(first.run_dir)
        try:
            check_same_end(run_dir, Path(first.run_dir), first.above)
            mark = answer_mark(folder_above(run_dir, first.above), first.mark, secrets.token_hex(8), first.host)
        except FolderNotSharedError as error:
            return replace(answer, folder_problem=str(error), holds_run=RunDir(run_dir).config.exists())
        self._stack.callback(remove_mark, mark)
        return replace(answer, mark=mark.name)

    def _common_address(self, reached: list[Reached]) -> str | None:
        """The first address of rank 0 that every rank reaches."""
        return next((a for a in self._presences[0].addresses if all(a in each.ways for each in reached)), None)

    def _unreached(self, reached: list[Reached]) -> list[Problem]:
        """Of this rank: that it does not reach rank 0, or only by an address that others do not."""
        own, first = reached[self._group.rank], self._presences[0]
        if not own.ways:
            text = f" cannot connect to rank 0 on {first.host} ({'; '.join(own.unreached)})"
            return [self._problem(text, NAME_ADDRESS)]
        if all(each.ways for each in reached):  # then all are told why that is not enough
            ways = ", ".join(own.ways)
            return [self._problem(f" reaches rank 0 on {first.host} only by {ways}, and others do not", NAME_ADDRESS)]
        return []

    def _neighbours(self, config: Config, reached: list[Reached], address: str) -> list[Problem]:
        targets: dict[int, tuple[str, int, str]] = {}
        for rank in neighbours(config, self._group.rank):
            other = self._presences[rank]
            targets[rank] = reached[rank].ways[address], other.port, other.token
        tried, problems = reach_each(targets.values()), []
        for rank, target in targets.items():
            if isinstance(error := tried[target], OSError):
                why = f" cannot connect to rank {rank} on {self._presences[rank].host} ({reason(error, *target[:2])})"
                problems.append(self._problem(why, NAME_ADDRESS))
        return problems

    def _apart(self, config: Config, reached: list[Reached]) -> list[int]:
        """The ranks that do not see the run directory of rank 0, as that finds them."""
        if self._group.rank:
            return []
        marks = [each.mark for each in reached[1:]]
        return ranks_apart(nearest_folder(_run_dir(config))[0], marks, config.shared_run_dir is False)

    def _folders(self, config: Config, reached: list[Reached], apart: list[int]) -> list[Problem]:
        """Of this rank: that it does not see rank 0's file; of rank 0: that it does not see another's."""
        own, problems = reached[self._group.rank], list[Problem]()
        if config.shared_run_dir is not True:
            another = f"{own.folder_problem}, and there is another run in it"
            return [self._problem(another, ONE_KEEPS)] if own.holds_run else []
        if self._group.rank:
            return [self._problem(own.folder_problem, SHARE)] if own.folder_problem else []
        for rank in apart:
            presence, folder = self._presences[rank], nearest_folder(_run_dir(config))[0]
            text = f" writes to another folder than '{folder}' of rank 0 on {self._host}: it is not shared"
            if reached[rank].mark:
                problems.append(Problem(rank=rank, host=presence.host, text=text, remedy=SHARE))
        return problems

    def _compare_data(self, config: Config) -> None:
        """In a further round, which takes as long as looking at the files does, where several hosts read images."""
        if not (reading := readers(config, self._presences)):
            return
        own = summary_of(config, self._group.rank in reading).to_message()
        given = self._group.gather("data", own, START_SECONDS, self._looking)
        self._refuse_for(differences(self._presences, [DataSummary.from_message(each) for each in given]))

    def _problem(self, text: str, remedy: str) -> Problem:
        return Problem(rank=self._group.rank, host=self._host, text=text, remedy=remedy)

    def _refuse_for(self, problems: list[Problem]) -> None:
        if problems:
            self._group.leave("check")
            raise StartRefused(in_words(problems, self._group.world_size))

    def _looking(self, missing: list[int]) -> None:
        self._say(f"{self._host} waits for {named(self._group, missing)} to look at the data")

    def _waiting(self, missing: list[int]) -> None:
        self._say(f"{self._host} waits for {named(self._group, missing)} to start and to say how it is reached")


def neighbours(config: Config, rank: int) -> list[int]:
    """The ranks that a rank exchanges tensors with: replicas of its stages, and the processes before and after it.

    Rank 0 stands for the coordinator, too, which runs on its host and sends to the first stages.
    """
    processes = training_processes(config)
    own = processes[rank]
    near = [other for other in processes if abs(other.stage_group - own.stage_group) <= 1]
    if rank == 0 or own.stage_group == 0:
        near += [other for other in processes if other.stage_group == 0 or other.rank == 0]
    return sorted({other.rank for other in near} - {rank})


def _run_dir(config: Config) -> Path:
    """The run directory; the folder of all runs where it is not named yet."""
    return Path(config.run_dir if config.run_dir is not None else "runs").absolute()
