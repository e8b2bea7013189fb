"""A host is cut off for good: the run ends with one cause that names it, on both sides, and nobody stays behind.

In new interpreters, because a rank ends torchrun's agent, which has to be its parent.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.laboratory.hosts import Laboratory, laboratory, needs_laboratory
from tests.runs import ENDLESS
from tests.test_hosts import refusals, torchruns
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, needs_laboratory, pytest.mark.timeout(900)]
LIMITS = ("hang_timeout=6", "link.timeout=3600")
"""Nobody on either side waits for a link."""


def training(lab: Laboratory) -> list[str]:
    """Ranks, coordinators and feeds that are left on any host; torchrun's agents not."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if str(lab.shared) in " ".join(words) and "torch.distributed.run" not in words:
            found.append(" ".join(words))
    return found


def test_the_host_is_the_cause_and_all_its_stages_are_named(tmp_path: Path) -> None:
    with laboratory(2) as lab, torchruns(lab, 2, ENDLESS, *LIMITS, forked=False) as (first, second):
        metrics = lab.shared / "run/metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 4, lambda: (first.err, second.err))
        lab[2].link(up=False)
        _, said = first.communicate()
        assert second.wait() != 0
        (sentence,) = set(refusals(said))
        assert re.fullmatch(
            r"error: stage 3, stage 4 failed at step \d+: host node2 is unreachable: no sign of life for \d+ s "
            r"\(hang_timeout\) of any process there; it is stopped or cut off",
            sentence,
        )
        wait_until(lambda: not training(lab), lambda: training(lab))
