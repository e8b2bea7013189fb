"""What it costs to be seen: throughput with everything observed as a share of that with nothing.

    python tests/benchmarks/metrics_cost.py [--rounds 3] [--steps 60] [--runtime pipelined|serial]

Every round trains the same network for the same steps with nothing observed, with the defaults, with the norms at every
step, with metrics that are asked all the time, with a trace, with TensorBoard, and with all of it, one after the other
in an order that changes; the ratios are taken within the round. The digests of the trained weights are compared too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from common.runs import ROOT, machine, train

OFF = "off"
NOTHING = ("metrics.enabled=false", "metrics.norms_every=0", "alarms.enabled=false")
VARIANTS = {
    OFF: NOTHING,
    "defaults": (),
    "norms at every step": ("metrics.norms_every=1",),
    "scraped all the time": (),
    "a trace": ("trace=true",),
    "TensorBoard": ("trackers=[tensorboard]",),
    "everything": ("metrics.norms_every=1", "trace=true", "trackers=[tensorboard]"),
}
SCRAPED = ("scraped all the time", "everything")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--runtime", choices=["pipelined", "serial"], default="pipelined")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    print(machine())
    print(f"{given.runtime}, {given.config.name}, batches of {given.batch}, {given.steps} steps, {given.rounds} rounds")
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    digests = set()
    for number in range(given.rounds):
        names = list(VARIANTS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            report = one_run(given, VARIANTS[name], name in SCRAPED)
            rates[name].append(report["images_per_second"])
            digests.add(report["final_digest"])
            print(f"round {number + 1}  {name:22} {rates[name][-1]:8.1f} images/s", flush=True)
    print(f"the trained weights are {'the same in all' if len(digests) == 1 else 'DIFFERENT'}")
    print("\nthroughput / that with nothing observed, median of the rounds [range]")
    for name, values in rates.items():
        ratios = [own / base for own, base in zip(values, rates[OFF], strict=True)]
        print(f"  {name:22} {median(ratios):.3f}  [{min(ratios):.3f} to {max(ratios):.3f}]")


def one_run(given: argparse.Namespace, observed: tuple[str, ...], scraped: bool) -> dict[str, Any]:
    """The report of one run; `scraped` asks for its metrics ten times a second meanwhile."""
    fixed = (f"train.max_steps={given.steps}", f"runtime={given.runtime}", f"data.batch_size={given.batch}")
    with tempfile.TemporaryDirectory() as folder:
        run, over = Path(folder) / "run", threading.Event()
        scraper = threading.Thread(target=scrape, args=(run / "coordinator.json", over), daemon=True)
        if scraped:
            scraper.start()
        try:
            return train(run, given.config, *fixed, "evaluation.linear_probe=false", *observed)
        finally:
            over.set()


def scrape(address: Path, over: threading.Event) -> None:
    """Read the metrics that `address` tells of, again and again; Prometheus asks every 15 seconds."""
    while not over.wait(0.1):
        try:
            url = json.loads(address.read_text())["metrics"]
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
        except (OSError, HTTPException):  # not there yet, or not any more
            continue


if __name__ == "__main__":
    main()
