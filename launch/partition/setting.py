"""One configuration on devices that are all alike: how fast it is, and whether they hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from launch.partition.costs import Costs, StageCut, seconds_of
from launch.partition.findings import SettingFindings, StageFindings
from launch.partition.forecast import carried_bytes, cuts_of, feed_seconds, forecast_of, modelled
from launch.plan.deciding import decided_run
from launch.plan.devices import CPU, ON_CPU, PROCESS, DeviceAccount
from launch.plan.fitting import needs_in_words
from launch.plan.memories import ProcessMemories
from launch.prepare.link_kind import with_link
from launch.prepare.placement import Placement, place
from pipeline.config import Config
from workers.throughput.records import Forecast, ModelledPipeline
from workers.topology.processes import TrainingProcess, replicas_of, stage_groups, training_processes


@dataclass(frozen=True)
class Settings:
    """Says what is to be known of configurations.

    Args:
        costs: of the network on the device.
        on_gpu: whether that is one; else all processes are on the processor.
        per_host: devices of each host, which processes take in the order of their ranks.
        several_hosts: whether there are more than one.
        memories: what the tensors of processes take.
    """

    costs: Costs
    on_gpu: bool
    per_host: int
    several_hosts: bool = False
    memories: ProcessMemories = field(default_factory=ProcessMemories)

    def of(self, config: Config) -> SettingFindings:
        """What is to be known of one.

        Raises:
            RuntimeError: an operation of the user's own network, or loss, has no fake form.
        """
        processes = training_processes(config)
        placed = with_link(self._on_devices(config), on_one_host=not self.several_hosts)
        placements = place(placed, len(processes))
        sizes = dict.fromkeys((device for each in placements for device in each.devices), self.costs.memory)
        decided, accounts = self._decided(placed, placements, sizes)
        cuts = cuts_of(decided, [unit.unit for unit in self.costs.units])
        pipeline = self._pipeline(decided)
        forecast = forecast_of(pipeline)
        full = [needs_in_words(account) for account in accounts if not account.fits]
        feed = feed_seconds(self.costs, decided)
        return SettingFindings(
            config=config.model_dump(mode="json"),
            devices=len(processes),
            link=decided.link.resolved_kind,
            stages=tuple(self._stages(decided, cuts, forecast, accounts)),
            images_per_second=forecast.images_per_second,
            bound=forecast.bound,
            fill=forecast.fill,
            limit=forecast.limit,
            limiting=forecast.limiting,
            feed=self.costs.batch / feed if feed else None,
            full=tuple(full),
        )

    def _decided(
        self, config: Config, placements: tuple[Placement, ...], sizes: dict[str, int]
    ) -> tuple[Config, tuple[DeviceAccount, ...]]:
        """With `auto` decided; the batches between GPUs are on them where that fits, which is asked for first."""
        if config.link.device_to_device == "auto":
            ringed = config.model_copy(update={"link": config.link.model_copy(update={"device_to_device": True})})
            decided, accounts = decided_run(ringed, placements, sizes, self.memories)
            if not self.on_gpu or all(account.fits for account in accounts):
                return decided, accounts
        return decided_run(config, placements, sizes, self.memories)

    def images_per_second(self, config: Config, fed: bool = True) -> float:
        """The same number alone, whether or not devices hold it; `memory.recompute` is decided.

        Args:
            config: of the run.
            fed: by its own feed; otherwise images are always there.
        """
        pipeline = self._pipeline(with_link(config, on_one_host=not self.several_hosts))
        return forecast_of(pipeline, fed).images_per_second

    def _pipeline(self, config: Config) -> ModelledPipeline:
        cuts = cuts_of(config, [unit.unit for unit in self.costs.units])
        hosts = [process.rank // self.per_host for process in training_processes(config)]
        return modelled(self.costs, config, cuts, hosts)

    def _on_devices(self, config: Config) -> Config:
        """Every process on a device of its own, or all on the processor."""
        device = "auto" if self.on_gpu else CPU
        stages = {index: own.model_copy(update={"device": None}) for index, own in config.stages.items()}
        return config.model_copy(update={"device": device, "stages": stages})

    def _stages(
        self, decided: Config, cuts: Sequence[StageCut], forecast: Forecast, accounts: Sequence[DeviceAccount]
    ) -> Iterator[StageFindings]:
        processes, units = training_processes(decided), [unit.unit for unit in self.costs.units]
        for group, (members, shares) in enumerate(zip(stage_groups(decided), forecast.stages, strict=True)):
            replicas = replicas_of(processes, group)
            needs = self._needs(decided, members, replicas[0], accounts)
            for cut in (cuts[index - 1] for index in members):
                end = self.costs.ends[cut.stage, cut.last]
                images = self.costs.batch / cut.replicas
                yield StageFindings(
                    stage=cut.stage,
                    units=tuple(units[cut.first : cut.last + 1]),
                    devices=tuple(map(self._device, replicas)),
                    recompute=cut.recompute,
                    chunk=cut.chunk,
                    needs=needs,
                    has=self.costs.memory,
                    seconds=seconds_of(self.costs, cut).compute,
                    end=images * (end.forward + end.backward) + end.step + self.costs.batch * end.loss,
                    carried=carried_bytes(decided, group) if cut.stage == members[0] else 0,
                    **asdict(shares),
                )

    def _needs(
        self, config: Config, stages: tuple[int, ...], process: TrainingProcess, accounts: Sequence[DeviceAccount]
    ) -> int:
        """Of the device of a process; on a processor, which all share, of the process alone."""
        if self.on_gpu:
            return accounts[process.rank].needs
        tensors = self.memories(config, stages, False).peak
        return tensors + tensors // ON_CPU + PROCESS

    def _device(self, process: TrainingProcess) -> str:
        if not self.on_gpu:
            return CPU
        host = process.rank // self.per_host
        name = f"cuda:{process.rank - host * self.per_host}"
        return f"{host + 1}: {name}" if self.several_hosts else name
