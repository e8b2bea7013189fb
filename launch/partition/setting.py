"""One configuration on devices that are all alike: how fast it is, and whether they hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from launch.partition.costs import Costs, StageCut, seconds_of
from launch.partition.findings import SettingFindings, StageFindings
from launch.partition.forecast import carried_bytes, cuts_of, feed_seconds, forecast_of, modelled
from launch.plan.deciding import decided_run
from launch.plan.devices import CPU, ON_CPU, PROCESS, DeviceAccount
from launch.plan.fitting import needs_in_words
from launch.plan.memories import ProcessMemories
from launch.prepare.placement import Placement, place
from launch.prepare.recompute import undecided
from pipeline.config import Config
from workers.throughput.records import Forecast
from workers.topology.processes import TrainingProcess, stage_groups, training_processes


@dataclass(frozen=True)
class Settings:
    """Says what is to be known of configurations.

    Args:
        costs: of the network on the device.
        on_gpu: whether that is one; else all processes are on the processor.
        per_host: devices of each host, which processes take in the order of their ranks.
        memories: what the tensors of processes take.
    """

    costs: Costs
    on_gpu: bool
    per_host: int
    memories: ProcessMemories = field(default_factory=ProcessMemories)

    def of(self, config: Config, original: Config | None = None) -> SettingFindings:
        """What is to be known of one.

        Args:
            config: of the run, with a kind of link.
            original: what is shown of it, if that is another.

        Raises:
            RuntimeError: an operation of the user's own network, or loss, has no fake form.
        """
        processes = training_processes(config)
        config = self._on_devices(config)
        placements = place(config, len(processes))
        sizes = dict.fromkeys((device for each in placements for device in each.devices), self.costs.memory)
        decided, accounts = decided_run(config, placements, sizes, self.memories)
        cuts = cuts_of(decided, [unit.unit for unit in self.costs.units])
        pipeline = modelled(self.costs, decided, cuts, [self._host(process.rank) for process in processes])
        forecast = forecast_of(pipeline)
        full = [needs_in_words(account) for account in accounts if not account.fits]
        feed = feed_seconds(self.costs, decided)
        shown = original or config
        return SettingFindings(
            config=shown.model_dump(mode="json"),
            devices=len(processes),
            link=decided.link.resolved_kind,
            stages=tuple(self._stages(decided, cuts, forecast, placements, accounts)),
            images_per_second=forecast.images_per_second,
            bound=forecast.bound,
            fill=forecast.fill,
            limit=forecast.limit,
            limiting=forecast.limiting,
            feed=self.costs.batch / feed if feed else float("inf"),
            unfed=forecast_of(pipeline, fed=False).images_per_second,
            full=tuple(full),
        )

    def _on_devices(self, config: Config) -> Config:
        """Every process on a device of its own, or all on the processor."""
        device = "auto" if self.on_gpu else CPU
        stages = {index: own.model_copy(update={"device": None}) for index, own in config.stages.items()}
        return config.model_copy(update={"device": device, "stages": stages})

    def _host(self, rank: int) -> int:
        return rank // self.per_host

    def _stages(self, config, cuts, forecast, placements, accounts):
        ...
