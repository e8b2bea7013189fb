"""Real runs in whose memory a bit is flipped: what the digests, the checksums of links and a second life say of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.recovery import STEPS, disturbed, fault, faults, pause, undisturbed, undisturbed_bits
from tests.runs import LIMIT, digests, start, train, wait_for_snapshot

pytestmark = pytest.mark.processes

EVERY = "digests.every=1"
OTHER_BITS = re.compile(r"stage (\d) has done step (\d+) again and got other bits than before: its (\w+) differs first")
CHANGED = (
    r"the message of step (\d+) has changed on its way from stage 2 on (\S+) to stage 3 on \2: .*\(link\.checksum\)"
)


def first_difference(folder: Path) -> tuple[int, int, str]:
    """Step, stage and name of the first digest that is not that of the run that nothing happens to."""
    whole = undisturbed_bits(EVERY)[1]
    return next(
        (step, stage, name)
        for step, stages in sorted(digests(folder).items())
        for stage, found in sorted(stages.items())
        for name, digest in found.items()
        if whole[step][stage][name] != digest
    )


def test_a_run_that_goes_on_says_which_step_had_other_bits(tmp_path: Path) -> None:
    life = (*STEPS, EVERY, "runtime=serial")
    struck = faults(fault("flip_weight", 2, 5), pause(tmp_path / "die", 2, 6), fault("kill", 2, 6))
    process = start(tmp_path, *life, struck)
    wait_for_snapshot(tmp_path, 4, process)
    (tmp_path / "die").touch()
    process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    result = train(tmp_path, *life, struck)
    assert result.returncode == 0, result.stderr
    assert "going on from the snapshot after 4 steps" in result.stdout
    ((stage, step, what),) = set(OTHER_BITS.findall(result.stdout))  # when it happens, and in the summary
    assert (stage, step) == ("2", "5")
    assert what in ("loss", "gradient", "weights")
    events = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    told = [(e["kind"], e["name"], e["stage"], e["step"]) for e in events if OTHER_BITS.match(e["text"])]
    assert told == [("alarm", "mismatch", 2, 5)]
    assert digests(tmp_path) == undisturbed_bits(EVERY)[1], "the second life is the right one"


@pytest.mark.slow
def test_a_stage_that_comes_back_says_the_same(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        struck = faults(fault("flip_weight", 2, 5), trial.pause(2, 6), fault("kill", 2, 6))
        process = trial.start("restart=stage", EVERY, struck)
        wait_for_snapshot(tmp_path, 4, process)
        trial.go()
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert {found[:2] for found in OTHER_BITS.findall(out)} == {("2", "5")}
        assert "The stages after it went on with the first bits" in out
        assert first_difference(tmp_path)[:2] == (5, 2), "what they went on with is what is recorded"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip_weight", "flip_gradient", "flip_optimizer", "flip_message"])
def test_a_pipelined_run_is_struck_as_a_serial_one(tmp_path: Path, kind: str) -> None:
    found = []
    for runtime in ("serial", "pipelined"):
        (folder := tmp_path / runtime).mkdir()
        strike = faults(fault(kind, 3, 5, draw=2))
        result = train(folder, *STEPS, EVERY, f"runtime={runtime}", "link.checksum=false", strike)
        assert result.returncode == 0, result.stderr
        found.append((first_difference(folder), digests(folder)))
    assert found[0] == found[1]
    step, stage, _ = found[0][0]
    assert stage == 3
    assert step == 5 or (kind == "flip_optimizer" and step > 5)


SHARED = {
    "shared": ("engine.shard_optimizer=true",),
    "zero 1": ("stages.2.engine={kind: deepspeed, zero_stage: 1}", "stages.2.optimizer.kind=sgd"),
    "zero 2": ("stages.2.engine={kind: deepspeed, zero_stage: 2}", "stages.2.optimizer.kind=sgd"),
}
"""Engines that spread the state of an optimizer over the replicas."""


@pytest.mark.slow
@pytest.mark.parametrize("engine", SHARED.values(), ids=SHARED)
def test_the_state_that_a_replica_holds_a_part_of_is_struck(tmp_path: Path, engine: tuple[str, ...]) -> None:
    found = []
    for name, strike in (("whole", "faults=[]"), ("struck", faults(fault("flip_optimizer", 2, 3, draw=1, replica=2)))):
        (folder := tmp_path / name).mkdir()
        result = train(folder, *STEPS, EVERY, "stages.2.replicas=2", *engine, strike)
        assert result.returncode == 0, result.stderr
        found.append(digests(folder))
    whole, struck = found
    differing = [
        (step, stage) for step, stages in struck.items() for stage in stages if stages[stage] != whole[step][stage]
    ]
    assert differing[0][0] >= 3
    assert differing[0][1] == 2


@pytest.mark.slow
@pytest.mark.parametrize("link", ["queue", "p2p", "rpc"])
def test_a_message_that_changes_on_its_way_ends_the_run_or_is_sent_again(tmp_path: Path, link: str) -> None:
    strike = (f"link.kind={link}", faults(fault("flip_message", 3, 5)))
    with disturbed(tmp_path / "ends") as trial:
        error = trial.failed(trial.start(*strike))
        found = re.match(rf"error: stage 3 failed at step \d+: link2 \(stage 2 -> stage 3\): {CHANGED}", error)
        assert found, error
        assert found[1] == "5"
    if link == "rpc":  # its group cannot take a new member
        return
    with disturbed(tmp_path / "again") as trial:
        result = trial.train("restart=stage", *strike)
        assert result.returncode == 0, result.stderr
        assert re.search(CHANGED, result.stdout)
        assert trial.digest == undisturbed()
