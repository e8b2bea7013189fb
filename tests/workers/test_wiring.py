"""Which links every process of a run opens: each must be opened at both its ends, and by nobody else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.stage.bit_flips import Exposed, untouched
from tests.pipeline.small import small_config
from workers import wiring
from workers.links.base import LinkAddress
from workers.links.factory import CPU
from workers.links.messages import TensorSpec
from workers.run.files import RunDir
from workers.topology.processes import training_processes
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.wiring import Wiring

Opened = tuple[str, str, str, str, TensorSpec, str]
"""What was opened: the kind of link, its name, its two ends, what it carries at most, its codec."""


@pytest.fixture
def rendezvous(tmp_path: Path) -> Rendezvous:
    return Rendezvous(
        private_dir=str(tmp_path), key=b"key", rpc_init="", control="", store=f"file://{tmp_path / 'store'}"
    )


class OpenedEnd(str):
    """Stands for an end of a link; its name."""

    way = "stage 1 -> stage 2: queue, by a test"


class Openings:
    """Opens nothing, and notes what was to be opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_senders: list[Opened] = []
        self.at_receivers: list[Opened] = []
        monkeypatch.setattr(wiring, "open_sender", self.sender)
        monkeypatch.setattr(wiring, "open_receiver", self.receiver)
        monkeypatch.setattr(wiring, "scatter_sender", lambda points, part: (points, part))
        monkeypatch.setattr(wiring, "gather_receiver", lambda points, part, device: (points, part))

    def sender(
        self,
        kind: str,
        address: LinkAddress,
        spec: TensorSpec,
        limit: float,
        codec: str,
        device: torch.device,
        device_to_device: bool,
        *,
        lasting: Any,
        checksum: object,
    ) -> Any:
        assert (limit, device, device_to_device, checksum) == (START_SECONDS, CPU, True, "auto")
        self.at_senders.append((kind, address.name, address.sender, address.receiver, spec, codec))
        return address.name if lasting is None else lasting(lambda: address.name)

    def receiver(
        self,
        kind: str,
        address: LinkAddress,
        spec: TensorSpec,
        limit: float,
        *,
        device: torch.device,
        codec: str,
        device_to_device: bool,
        exposed: Exposed,
    ) -> str:
        assert (limit, device, device_to_device, exposed) == (START_SECONDS, CPU, True, untouched)
        self.at_receivers.append((kind, address.name, address.sender, address.receiver, spec, codec))
        return OpenedEnd(address.name)


def everybody(config: Config, rendezvous: Rendezvous, folder: Path) -> dict[str, tuple[Any, Any]]:
    """The links of every process by its name: into its unit, and out of it."""
    found: dict[str, tuple[Any, Any]] = {}
    for process in training_processes(config):
        own = Wiring(config, rendezvous, RunDir(folder))
        found[process.name] = own.receiver(process, 0, CPU), own.sender(process, CPU)
    found["coordinator"] = None, Wiring(config, rendezvous, RunDir(folder)).first_sender()
    return found


def names(points: Any) -> list[str]:
    """Of the links that one end is made of."""
    return [name for _, name in points[0]]


def test_stages_of_different_numbers_of_replicas_open_the_same_links_at_both_ends(
    rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six images the first replica of three has two, of two three: the second sends to both."""
    stages = {"1": {"replicas": 3}, "2": {"replicas": 2}}
    config = small_config(
        model={"cuts": ["layer2"]}, stages=stages, data={"batch_size": 6}, link={"kind": "p2p", "codec": "int8"}
    )
    openings = Openings(monkeypatch)
    found = everybody(config, rendezvous, tmp_path)
    assert sorted(openings.at_senders) == sorted(openings.at_receivers)
    assert {opened[0] for opened in openings.at_senders} == {"p2p"}
    assert names(found["coordinator"][1]) == ["link0.1-1", "link0.1-2", "link0.1-3"]
    assert [names(found[f"stage 1 replica {r}"][0]) for r in (1, 2, 3)] == [["link0.1-1"], ["link0.1-2"], ["link0.1-3"]]
    assert [names(found[f"stage 1 replica {r}"][1]) for r in (1, 2, 3)] == [
        ["link1.1-1"], ["link1.2-1", "link1.2-2"], ["link1.3-2"],
    ]  # fmt: skip
    assert [names(found[f"stage 2 replica {r}"][0]) for r in (1, 2)] == [
        ["link1.1-1", "link1.2-1"], ["link1.2-2", "link1.3-2"],
    ]  # fmt: skip
    assert all(found[f"stage 2 replica {r}"][1] is None for r in (1, 2))
    rows = {name: spec.shape[1] for _, name, _, _, spec, _ in openings.at_senders}
    assert rows == {
        "link0.1-1": 2, "link0.1-2": 2, "link0.1-3": 2, "link1.1-1": 2, "link1.2-1": 1, "link1.2-2": 1, "link1.3-2": 2,
    }  # fmt: skip
    assert {codec for _, name, *_, codec in openings.at_senders if name.startswith("link0")} == {"none"}
    assert {codec for _, name, *_, codec in openings.at_senders if name.startswith("link1")} == {"int8"}
    parts = {name: part.shape[1] for name, (into, _) in found.items() if into is not None for part in [into[1]]}
    assert parts == {"stage 1 replica 1": 2, "stage 1 replica 2": 2, "stage 1 replica 3": 2} | dict.fromkeys(
        ("stage 2 replica 1", "stage 2 replica 2"), 3
    )


def test_single_processes_have_one_link_that_needs_no_numbers(
    rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(model={"cuts": ["layer2"]})
    openings = Openings(monkeypatch)
    found = everybody(config, rendezvous, tmp_path)
    assert sorted(openings.at_senders) == sorted(openings.at_receivers)
    assert [names(found[name][1]) for name in ("coordinator", "stage 1")] == [["link0"], ["link1"]]
    assert [names(found[name][0]) for name in ("stage 1", "stage 2")] == [["link0"], ["link1"]]
    assert Wiring(config, rendezvous, RunDir(tmp_path)).in_words() == [
        f"link from {before} to {after}: queue, at most {config.link.depth} batches of {spec} ({size} MB)"
        for before, after, spec, size in (
            ("coordinator", "stage 1", openings.at_senders[-1][4], f"{openings.at_senders[-1][4].nbytes / 1e6:.1f}"),
            ("stage 1", "stage 2", openings.at_senders[0][4], f"{openings.at_senders[0][4].nbytes / 1e6:.1f}"),
        )
    ]


def test_where_stages_come_back_both_ends_of_every_link_last(
    rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They forget together what a snapshot has made superfluous, and are served while others still run."""
    config = small_config(model={"cuts": ["layer2"]}, restart="stage", snapshots={"every": 2})
    Openings(monkeypatch)
    heard: list[tuple[str, Any]] = []

    def lasting(kind: str) -> Any:
        def make(opening: Any, *arguments: Any) -> Any:
            heard.append((f"{kind} opened", opening(*([START_SECONDS] if kind == "receiver" else []))))
            return SimpleNamespace(
                serve=lambda: heard.append((f"{kind} served", None)),
                discard_before=lambda steps: heard.append((f"{kind} forgets", steps)),
            )

        return make

    monkeypatch.setattr(wiring, "ReplayingSender", lasting("sender"))
    monkeypatch.setattr(wiring, "ResumingReceiver", lasting("receiver"))
    own = Wiring(config, rendezvous, RunDir(tmp_path))
    first = training_processes(config)[0]
    own.receiver(first, 4, CPU)
    own.sender(first, CPU)
    own.committed(6)
    own.serve()
    assert heard == [
        ("receiver opened", "link0"),
        ("sender opened", "link1"),
        ("sender forgets", 6),
        ("receiver served", None),
        ("sender served", None),
    ]
