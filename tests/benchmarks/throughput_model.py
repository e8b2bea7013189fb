"""The throughput model (`workers/throughput`) beside real runs: images per second and busy shares of all stages.

    python tests/benchmarks/throughput_model.py [--steps 48] [--only WORD] [--details]

A network that trains in milliseconds, whose stages sleep before each update (`faults`, `slow`): so any number of
processes run on two cores without being in each other's way, and a run shows its protocol alone. Only in the last cases
nothing sleeps, and the stages compete for the cores. The model is given what each run measured of its stages (busy and
copying seconds of a step, bytes sent), of its feed, and what a plain stream got of the network before it. It says what
a run measures of the whole: images per second, and the share of its time that each stage computes. The first quarter of
the steps, in which the pipeline fills, is left out. Runs on hosts take root: these are network namespaces with slow
cards.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.hosts import bytes_a_second, slow_down, train_on_hosts
from common.runs import ROOT, machine, steps, train

sys.path.insert(0, str(ROOT))

from pipeline.config import Config
from pipeline.validation.loading import load_config
from tests.laboratory.hosts import laboratory
from tests.runs import TINY
from workers.throughput.model import forecast
from workers.throughput.modelled import LinkSpeeds, StageMeasured, pipeline_measured
from workers.throughput.records import Forecast
from workers.topology.processes import stage_groups

CUTS = {2: "[layer2]", 3: "[layer1,layer2]", 4: "[layer1,layer2,layer3]"}
TIMES = ("busy", "wait_input", "wait_output", "copying")
EARLY = "model.cuts=[layer1]"
FEW = "data.drop_last=true"
IMAGES = "data.name=tests.benchmarks.common.slow_images:SlowImages"
SPLIT = "data.image_size=32", "data.batch_size=32"
"""Batches large enough for the feed to split them between its workers."""


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        name: as it is printed.
        pauses: milliseconds before each update of every stage.
        overrides: of the tiny network.
        megabits: of the card of each of two hosts, in a second; one host if 0.
        spread: milliseconds that each pause may be shorter or longer, at random.
    """

    name: str
    pauses: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    megabits: float = 0.0
    spread: int = 0


CASES = [
    Case("three even stages", (100, 100, 100)),
    Case("slow first stage", (160, 60, 60)),
    Case("slow last stage", (60, 60, 160)),
    Case("slow in the middle, depth 1", (60, 160, 80), ("link.depth=1",)),
    Case("four uneven stages, depth 4", (80, 120, 60, 100), ("link.depth=4",)),
    Case("four stages in two processes", (40, 60, 80, 40), ("processes=2",)),
    Case("replicas 1-2-1", (60, 140, 60), ("stages.2.replicas=2", FEW)),
    Case("replicas 2-3", (60, 160), ("stages.1.replicas=2", "stages.2.replicas=3", FEW, "data.batch_size=18")),
    Case("p2p", (80, 140, 80), ("link.kind=p2p",)),
    Case("rpc", (80, 140, 80), ("link.kind=rpc",)),
    Case("slow feed", (40, 50), (IMAGES,)),
    Case("slow feed, a batch by two workers", (10, 10), (IMAGES, *SPLIT, "data.workers=2")),
    Case("slow feed, a batch by each of two", (20, 30), (IMAGES, "data.workers=2")),
    Case("slow feed of the first stage", (40, 50), (IMAGES, "data.feed=stages")),
    Case("one process", (60, 60), ("runtime=serial",)),
    Case("2 hosts, slow card", (60, 60), (EARLY,), megabits=4.0),
    Case("2 hosts, slow card, depth 1", (60, 60), (EARLY, "link.depth=1"), megabits=4.0),
    Case("2 hosts, slow card, depth 4, rpc", (60, 60), (EARLY, "link.depth=4", "link.kind=rpc"), megabits=4.0),
    Case("2 hosts, slow card, codec int8", (60, 60), (EARLY, "link.codec=int8"), megabits=4.0),
    Case("2 hosts, two links on a card", (60, 60), (EARLY, "replicas=2", FEW), megabits=1.0),
    Case(
        "2 hosts, replicas 1-2-1",
        (60, 60, 60),
        ("stages.2.replicas=2", FEW, "data.batch_size=64"),
        megabits=4.0,
    ),
    Case("three stages that vary", (100, 100, 100), spread=80),
    Case("three stages that vary, depth 1", (100, 100, 100), ("link.depth=1",), spread=80),
    Case("wide first, nothing sleeps", (0, 0), ("data.batch_size=256", "model.width=16", "model.cuts=[layer3]")),
    Case("wide last, nothing sleeps", (0, 0), ("data.batch_size=256", "model.width=16", "model.cuts=[layer1]")),
    Case("4 stages on 2 cores, nothing sleeps", (0,) * 4, ("data.batch_size=256", "model.width=16")),
]


@dataclass(frozen=True)
class Measured:
    """What a run has measured since a quarter of its steps was done."""

    images_per_second: float
    stages: list[StageMeasured]
    busy: list[float]
    """Shares of each stage group, 0 to 1."""
    feed_seconds: float


def write_config(case: Case, count: int, folder: Path) -> Path:
    """The configuration of a case, with a pause before every update."""
    stages = len(case.pauses)
    short = [f"train.max_steps={count}", "train.epochs=100", "data.batch_size=16"]
    overrides = [*short, f"model.cuts={CUTS[stages]}", *case.overrides]
    tiny = folder / "tiny.yaml"
    tiny.write_text(TINY)
    config = load_config(tiny, overrides)
    draw = random.Random(0)
    pauses = [
        {"kind": "slow", "stage": stage, "step": step, "replica": replica + 1,
         "seconds": (pause + draw.uniform(-case.spread, case.spread)) / 1e3}
        for stage, pause in enumerate(case.pauses, 1)
        for replica in range(config.replicas_of(stage))
        for step in range(count if pause else 0)
    ]  # fmt: skip
    (folder / "overrides.json").write_text(json.dumps(overrides))
    tiny.write_text(f"{TINY}faults: {json.dumps(pauses)}\n")
    return tiny


@contextmanager
def finished_run(case: Case, count: int) -> Iterator[tuple[Path, Config, LinkSpeeds, list[int] | None]]:
    """The folder of a run, its configuration, the speed of the network, and the host of each process."""
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(case, count, Path(folder))
        overrides = json.loads((Path(folder) / "overrides.json").read_text())
        loaded = load_config(config, overrides)
        if not case.megabits:
            train(run := Path(folder) / "run", config, *overrides)
            yield run, loaded, LinkSpeeds(), None
            return
        with laboratory(2) as lab:
            slow_down(lab, case.megabits)
            card = bytes_a_second(lab, int(1.5e6 * case.megabits))
            each = sum(loaded.replicas_of(stage) for stage in range(1, loaded.num_stages + 1)) // 2
            run = train_on_hosts(lab, each, config, overrides)
            yield run, loaded, LinkSpeeds(card=card), [0] * each + [1] * each


def measured(run: Path, config: Config) -> Measured:
    """What a run has written of itself."""
    lines, report = steps(run), json.loads((run / "report.json").read_text())
    first, last = lines[len(lines) // 4], lines[-1]
    count = last["step"] - first["step"]
    spent = {
        after["stage"]: {name: after[name] - before[name] for name in (*TIMES, "link_bytes")}
        for before, after in zip(first["stages"], last["stages"], strict=True)
    }
    stages = [
        StageMeasured(stage=stage, **{name: of[name] / count for name in ("busy", "copying", "link_bytes")})
        for stage, of in spent.items()
    ]
    groups = [tuple(spent)] if config.in_one_process else stage_groups(config)
    whole = [sum(spent[stage][name] for stage in group for name in TIMES) for group in groups]
    busy = [sum(spent[stage]["busy"] for stage in group) / time for group, time in zip(groups, whole, strict=True)]
    feed = sum(report["feed"]["seconds"].values()) / max(config.data.workers, 1) / len(lines)
    rate = count * config.data.batch_size / (last["time"] - first["time"])
    return Measured(rate, stages, busy, feed)


def compared(name: str, found: Measured, says: Forecast) -> str:
    """A line of the table."""
    apart = max(abs(share.busy - busy) for share, busy in zip(says.stages, found.busy, strict=True))
    rate, ratio = says.images_per_second, says.images_per_second / found.images_per_second
    numbers = f"{found.images_per_second:9.1f} {rate:9.1f} {ratio:6.3f} {says.bound:8.1f} {apart:6.3f}"
    return f"{name:36} {numbers}  {says.limiting if says.limit != 'link' else f'link into {says.limiting}'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--details", action="store_true", help="what was measured and predicted of each stage")
    options = parser.parse_args()
    print(machine())
    print("images/s; ratio: predicted / measured; busy: largest difference of a stage's share")
    print(f"{'':36} {'measured':>9} {'predicted':>9} {'ratio':>6} {'bound':>8} {'busy':>6}  limited by")
    for case in CASES:
        if options.only not in case.name:
            continue
        with finished_run(case, options.steps) as (run, config, speeds, hosts):
            found = measured(run, config)
        pipeline = pipeline_measured(config, found.stages, found.feed_seconds, speeds=speeds, hosts=hosts)
        says = forecast(pipeline)
        print(compared(case.name, found, says), flush=True)
        if options.details:
            print(found, says, sep="\n")


if __name__ == "__main__":
    main()
