"""The process that started the processes of a run, as the coordinator sees it."""

from __future__ import annotations

from typing import Any, Protocol


class Supervisor(Protocol):
    """The process that started the processes of the run."""

    def announce(self, control: str | tuple[str, int]) -> None:
        """Take note of the address of the control channel."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """Events since the last call: a process has ended (`gone`), the run is to stop (`leave`).

        The end of a process says how often it had been started again (`attempt`, 0 if it is not there).
        """
        ...

    def restart(self, names: list[str]) -> None:
        """End these processes if necessary, and start them again."""
        ...

    def signal_stacks(self, names: list[str]) -> None:
        """Send `workers.run.signals.STACKS` to these processes, if it can; torchrun and srun cannot."""
        ...
