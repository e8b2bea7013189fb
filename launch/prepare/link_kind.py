"""What a run does where the user leaves it to how its hosts are: the kind of link, and where parts are kept."""

from __future__ import annotations

from collections.abc import Sequence

from launch.prepare.placement import Placement, device_of
from pipeline.config import Config
from pipeline.errors import ConfigError
from workers.topology.processes import training_processes

CPU = "cpu"


def with_link(config: Config, on_one_host: bool) -> Config:
    """The configuration with `link.kind: auto` replaced by the kind that fits; in one process there is no link."""
    if config.link.kind != "auto" or config.in_one_process:
        return config
    link = config.link.model_copy(update={"kind": "queue" if on_one_host else "p2p"})
    return config.model_copy(update={"link": link})


def with_shared_run_dir(config: Config, shared: bool) -> Config:
    """The configuration with `shared_run_dir: auto` replaced by what was found on several hosts."""
    return config.model_copy(update={"shared_run_dir": shared}) if config.shared_run_dir == "auto" else config


def check_nccl(config: Config, placements: Sequence[Placement]) -> None:
    """Raises `ConfigError` where a stage is to be restarted alone and a `p2p` link of the run is NCCL's.

    NCCL's transfers are kernels that wait on the GPU for the other process: what they do when that is killed has never
    been tried.
    """
    if config.restart != "stage" or config.link.kind != "p2p" or config.in_one_process:
        return
    processes = training_processes(config)
    for sender in processes:
        for receiver in processes:
            ends = device_of(sender, placements), device_of(receiver, placements)
            if receiver.stage_group == sender.stage_group + 1 and CPU not in ends and ends[0] != ends[1]:
                problem = (
                    f"got 'stage', and from {sender.name} on {ends[0]} to {receiver.name} on {ends[1]} a p2p link is "
                    "NCCL's, for which the restart of one process has never been tried"
                )
                raise ConfigError("restart", problem, "Give link.kind=queue, or restart=job")
