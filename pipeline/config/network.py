"""`network`: how the processes of a run on several hosts reach each other."""

from __future__ import annotations

from pipeline.config.base import Section


class NetworkConfig(Section):
    """Under torchrun on several hosts; each host may be given its own values. Normally all is found by itself."""

    address: str | None = None
    """Address of this host by which the others reach it, such as 10.0.0.3 or fd00::3; found if not given."""
    interface: str | None = None
    """Name of the interface by which the others reach this host, such as eth0; found if not given."""
