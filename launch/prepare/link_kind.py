"""What a run does where the user leaves it to how its hosts are: the kind of link, and where parts are kept."""

from __future__ import annotations

from pipeline.config import Config


def with_link(config: Config, on_one_host: bool) -> Config:
    """The configuration with `link.kind: auto` replaced by the kind that fits; in one process there is no link."""
    if config.link.kind != "auto" or config.in_one_process:
        return config
    link = config.link.model_copy(update={"kind": "queue" if on_one_host else "p2p"})
    return config.model_copy(update={"link": link})


def with_shared_run_dir(config: Config, shared: bool) -> Config:
    """The configuration with `shared_run_dir: auto` replaced by what was found on several hosts."""
    return config.model_copy(update={"shared_run_dir": shared}) if config.shared_run_dir == "auto" else config
