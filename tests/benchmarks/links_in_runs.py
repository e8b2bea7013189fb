"""Images per second, and seconds from the last step to the end, of runs that differ only in their links.

    python tests/benchmarks/links_in_runs.py [--rounds 3] [--steps 40] [--config FILE] [--hosts 2] [key=value ...]

Every round trains the same network for the same steps over every link, one after the other, so a machine whose speed
drifts drifts for all of them. Throughput runs from the end of the first step to the end of the last; the end is when
the command returns, without probes. All runs must end with the same weights. With `--hosts`, torchrun starts each run
on so many hosts of a laboratory in network namespaces (root), and ratios are to `p2p`, for `queue` joins no hosts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import common.hosts
from common.runs import ROOT, machine, train

sys.path.insert(0, str(ROOT))

from pipeline.validation.loading import load_config
from tests.laboratory.hosts import laboratory
from workers.topology.processes import training_processes

LINKS = {
    "queue": ["link.kind=queue"],
    "p2p": ["link.kind=p2p"],
    "rpc": ["link.kind=rpc"],
    "rpc, shm": ["link.kind=rpc", "link.rpc_transports=[shm,uv]"],
}


BETWEEN_HOSTS = ("p2p", "rpc")


def measure(config: Path, overrides: list[str], hosts: int) -> tuple[float, float, object]:
    """Images per second, seconds from the last step to the end, and the digests of the weights."""
    if hosts:
        return train_on_hosts(config, hosts, overrides)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        return measured(run, train(run, config, *overrides))


def measured(run: Path, report: dict[str, Any]) -> tuple[float, float, object]:
    """What `measure` returns, of a run that has just ended."""
    ending = time.time() - (run / "metrics.jsonl").stat().st_mtime
    return report["images_per_second"], ending, report["final_digest"]


def train_on_hosts(config: Path, hosts: int, overrides: list[str]) -> tuple[float, float, object]:
    """The same with the processes of the run spread over hosts; each must get as many as the others."""
    each, rest = divmod(len(training_processes(load_config(config, overrides))), hosts)
    if rest:
        raise SystemExit(f"error: the processes of {config} cannot be spread evenly over {hosts} hosts")
    with laboratory(hosts) as lab:
        run = common.hosts.train_on_hosts(lab, each, config, overrides)
        return measured(run, json.loads((run / "report.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--hosts", type=int, default=0, help="of a laboratory; without, one host without torchrun")
    parser.add_argument("overrides", nargs="*", help="key=value")
    options = parser.parse_args()
    print(machine())
    links = {name: LINKS[name] for name in (BETWEEN_HOSTS if options.hosts else LINKS)}
    first = next(iter(links))
    found: dict[str, list[tuple[float, float, object]]] = {name: [] for name in links}
    common = [f"train.max_steps={options.steps}", "evaluation.linear_probe=false", *options.overrides]
    for number in range(options.rounds):
        for name, overrides in links.items():
            row = measure(options.config, [*overrides, *common], options.hosts)
            found[name].append(row)
            print(f"round {number + 1}  {name:10} {row[0]:8.1f} images/s, {row[1]:.1f} s to the end", flush=True)
    print(f"\n{'median':10} {'images/s':>10} {f'of {first}':>10} {'s to the end':>14}")
    for name, rows in found.items():
        ratio = median(mine[0] / other[0] for mine, other in zip(rows, found[first], strict=True))
        print(f"{name:10} {median(row[0] for row in rows):10.1f} {ratio:10.2f} {median(row[1] for row in rows):14.1f}")
    same = all(row[2] == rows[0][2] for rows in found.values() for row in rows)
    print("the weights are equal in all runs" if same else "the weights DIFFER")


if __name__ == "__main__":
    main()
