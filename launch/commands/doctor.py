"""`onward doctor`: one page about this host, and about the way to another, each line right or with a remedy."""

from __future__ import annotations

import platform
import re
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from launch.doctor.comparison import OtherHost
from launch.doctor.findings import Finding, page
from launch.doctor.limits import limits
from launch.doctor.names import names
from launch.doctor.peer import WAIT_SECONDS, answer_one, compare_with, listen
from launch.doctor.runs_folder import folder_facts, runs_folder
from launch.doctor.software import gpu_facts, gpus, versions
from launch.processes.presence import own_versions
from launch.processes.shared_folder import nearest_folder, remove_mark, write_mark
from pipeline.config.network import NetworkConfig
from pipeline.errors import UserError
from workers.links.wire import describe
from workers.observing.terminal.verbosity import say
from workers.topology.network import candidates


def examine(run_dir: Path, listen_at: int | None, with_host: str | None) -> int:
    """Print the page; the number of lines that are wrong.

    Args:
        run_dir: where runs are, or will be, kept.
        listen_at: port at which another host is waited for.
        with_host: `HOST:PORT` of one that waits.

    Raises:
        UserError: the other host does not come, or is not there.
    """
    if listen_at is not None and with_host is not None:
        raise UserError("--listen and --with: one host waits, the other comes. Give one of them")
    address = parse_address(with_host) if with_host is not None else None
    found, facts = own_versions(), gpu_facts()
    say(f"{platform.node()}, {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC", important=True)
    findings = [versions(found, facts.cuda), gpus(facts), *names(), *limits(), runs_folder(folder_facts(run_dir))]
    say(page(findings), important=True)
    if listen_at is not None or address is not None:
        here = _this_host(run_dir, found)
        compared = _with_other(address, here) if address is not None else _listening(listen_at or 0, here)
        say(page(compared), important=True)
        findings += compared
    return _conclusion(findings)


def _conclusion(findings: list[Finding]) -> int:
    wrong = [finding.subject for finding in findings if finding.wrong]
    say(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong", important=True)
    return len(wrong)


def _this_host(run_dir: Path, found: dict[str, str]) -> OtherHost:
    folder, _ = nearest_folder(run_dir.absolute())
    return OtherHost(
        host=platform.node(), versions=found, addresses=candidates(NetworkConfig(), None), folder=str(folder)
    )


def _listening(port: int, here: OtherHost) -> list[Finding]:
    with listen(port) as listener:
        number = listener.getsockname()[1]
        places = " or ".join(describe((address, number)) for address in here.addresses[:3])
        say(f"\nwaiting for the other host, {WAIT_SECONDS / 60:g} minutes; there: onward doctor --with {places}")
        return answer_one(listener, here)


def _with_other(address: tuple[str, int], here: OtherHost) -> list[Finding]:
    mark = None
    with suppress(OSError):  # the page has said so
        mark = write_mark(Path(here.folder), secrets.token_hex(8))
    try:
        say("")
        return compare_with(address, replace(here, mark=mark.name if mark is not None else ""))
    finally:
        if mark is not None:
            remove_mark(mark)


def parse_address(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, `[ADDRESS]:PORT` in IPv6; raises `UserError`."""
    found = re.fullmatch(r"(?:\[([^\s\[\]]+)\]|([^\s:\[\]]+)):(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise UserError(
            f"--with: '{text}' is not HOST:PORT. Give what 'onward doctor --listen 0' prints on the other host"
        )
    return found[1] or found[2], int(found[3])
