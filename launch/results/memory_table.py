"""The account of a run as lines of text: a table of its processes, one of its links, and sums for the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from launch.plan.account import EvaluationAccount, GroupAccount, HostAccount, LinkAccount, RunAccount
from workers.run.out_of_memory import size_in_words

COLUMNS = ("process", "parameters", "optimizer", "gradients", "kept", "peak", "at the peak", "resident (RSS)")
PROCESSES = "what the tensors of each stage take; kept: for its backward pass; on a GPU the peak is an estimate"
LINKS = ("link", "kind", "codec", "a step", "buffers")
WIDTH = 96
"""Columns of a line that is folded; `# ` comes before it."""


def account_lines(account: RunAccount, several_hosts: bool = False) -> Iterator[str]:
    """What a run needs, as a reader wants to see it: processes, links, snapshots, host, evaluation.

    Args:
        account: of the run.
        several_hosts: it will run on more than this one.
    """
    yield PROCESSES
    yield from table([COLUMNS, *(row for group in account.groups for row in _processes(group))])
    if account.links:
        yield ""
        rows = [_link(list(links)) for _, links in groupby(account.links, lambda link: link.group)]
        yield from table([LINKS, *rows])
    yield ""
    if account.snapshots:
        disk, copies, most = (
            sum(getattr(part, name) for part in account.snapshots) for name in ("disk", "copy", "copies")
        )
        yield f"a snapshot: {size_in_words(disk)} on disk, and {range_of(copies, most)} of memory while it is written"
    yield from _evaluation(account.evaluation)
    yield from _host(account.host, several_hosts)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, with the columns below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def range_of(low: int, high: int) -> str:
    """From one number of bytes to another, in the unit of the larger; one number where both look the same."""
    first, last = size_in_words(low), size_in_words(high)
    if first == last:
        return last
    unit = 2**30 if high >= 2**30 else 2**20
    return f"{low / unit:.{2 if unit == 2**30 else 1}f} to {last}"


def _processes(group: GroupAccount) -> Iterator[tuple[str, ...]]:
    """A row for each stage; what holds for the process is in the first."""
    memory = group.memory
    for stage in memory.stages:
        first, alone = stage is memory.stages[0], len(memory.stages) == 1
        name = f"stage {stage.stage}" + (f" (each of {len(group.devices)})" if len(group.devices) > 1 else "")
        together = ("one process", "", "")
        if first:
            moment = memory.moment.removesuffix(f" of stage {stage.stage}") if alone else memory.moment
            resident = "" if group.resident is None else range_of(*group.resident)
            together = (size_in_words(memory.peak), moment, resident)
        held = (stage.parameters, stage.optimizer, stage.gradients, stage.kept)
        yield (name, *map(size_in_words, held), *together)


def _link(links: Sequence[LinkAccount]) -> tuple[str, ...]:
    """The row of all links between two neighbouring stages."""
    senders, receivers = (list(dict.fromkeys(getattr(link, end) for link in links)) for end in ("sender", "receiver"))
    buffers = sum(link.shared + link.sending + link.receiving for link in links)
    where = "shared memory" if links[0].shared else "GPU" if links[0].on_gpu else "memory"
    ways = ", ".join(way for way in dict.fromkeys(link.way for link in links) if way)
    name = f"{_ends(senders)} -> {_ends(receivers)}"
    return (
        name,
        links[0].kind,
        links[0].codec,
        size_in_words(sum(link.bytes_per_step for link in links)),
        f"{size_in_words(buffers)} of {where}" + (f" ({ways})" if ways else ""),
    )


def _ends(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0].partition(' replica')[0]} ({len(names)} replicas)"


def _evaluation(evaluation: EvaluationAccount) -> Iterator[str]:
    network = f"onward evaluate: {size_in_words(evaluation.network)} for the network, "
    batches = f"{evaluation.batches} batches at once of " if evaluation.batches > 1 else ""
    passing = f"{batches}{size_in_words(evaluation.batch)}"
    if evaluation.host_peak is None:
        yield f"{network}{passing} for a batch"
        yield f"  and {evaluation.features_per_image:,} bytes for the features of each image"
        return
    where = "on disk" if evaluation.features_on_disk else "in memory"
    peak = f"most at once {size_in_words(evaluation.host_peak)} ({evaluation.moment})"
    yield f"onward evaluate: {peak}; features {size_in_words(evaluation.features or 0)} {where}"


def _host(host: HostAccount, several: bool) -> Iterator[str]:
    have = min(host.limits.values(), default=None)
    verdict = {True: "it fits", False: "it does not fit", None: "it may fit"}[host.fits]
    of = "" if have is None else f" of {size_in_words(have)} that are available: {verdict}"
    yield f"memory of {'one host with all processes' if several else 'this host'}: {range_of(host.low, host.high)}{of}"
    line = "  "
    parts = [f"{term.name} {range_of(term.low, term.high)}" for term in host.terms]
    for number, part in enumerate(parts):
        part += "," if number < len(parts) - 1 else ""
        if len(line) + len(part) > WIDTH:
            yield line.rstrip()
            line = "  "
        line += part + " "
    yield line.rstrip()
    for what in host.unknown:
        yield f"  without {what}"
