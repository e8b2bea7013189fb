"""The tables of deploy/README.md: their ports, names and seconds are those of the code and of the files beside it."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
import yaml

from docs.site.surroundings import VARIABLES
from launch.prepare.start_commands import PORT
from launch.processes.slurm import PORTS
from pipeline.config import Config
from tests.deploy.pods import EVERY, TRAINER_PORT, PodTemplate, needs_kubectl, rendered
from tests.runs import ROOT
from workers.run.signals import PARENT_GONE, stop_signals

DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
SSHD = 22


def section(title: str) -> str:
    """What stands below a heading."""
    return re.split(r"^## ", README.partition(f"## {title}\n")[2], maxsplit=1, flags=re.M)[0]


def argument(template: PodTemplate, key: str) -> str:
    """The value of a key on the command line of a pod."""
    (found,) = (word.partition("=")[2] for word in template.container["args"] if word.startswith(f"{key}="))
    return str(found)


@pytest.mark.processes
@needs_kubectl
def test_ports_are_those_of_the_code_and_of_the_files() -> None:
    told = {
        int(port)
        for row in re.findall(r"^\| ([^|]*\d[^|]*) \|", section("Ports"), re.M)
        for port in re.findall(r"\d+", row)
    }
    published = {int(port.split(":")[-1]) for service in COMPOSE.values() for port in service["ports"]}
    meeting = {int(PodTemplate.of("pod-per-gpu").environment(0)["MASTER_PORT"]), TRAINER_PORT}
    meeting |= {
        each["port"]
        for found in rendered("pod-per-gpu")
        if found["kind"] == "Service"
        for each in found["spec"]["ports"]
    }
    assert told == {*published, PORT, *meeting, PORTS[0], PORTS[-1], SSHD}
    (page,) = published & {int(argument(PodTemplate.of(overlay), "metrics.port")) for overlay in EVERY}
    assert f"EXPOSE {page}\n" in (DEPLOY / "docker" / "Dockerfile").read_text()
    for overlay in EVERY:
        assert [each["containerPort"] for each in PodTemplate.of(overlay).container["ports"]] == [page]


@pytest.mark.processes
@needs_kubectl
def test_variables_are_those_of_the_code_or_of_the_trainer() -> None:
    told = set(re.findall(r"`([A-Z][A-Z_]+)(?:=\d+)?`", README))
    known = {name for names in VARIABLES for name in names.split(", ")}
    assert {"ONWARD_KEY_FILE", "TMPDIR"} <= told
    assert told <= known | PodTemplate.of("trainjob").environment(0).keys()


@pytest.mark.processes
@needs_kubectl
@pytest.mark.parametrize("overlay", EVERY)
def test_folders_and_secrets_are_those_of_the_pods(overlay: str) -> None:
    template = PodTemplate.of(overlay)
    places = {each["name"]: each["mountPath"] for each in template.container["volumeMounts"]}
    table = section("Folders and secrets")
    for volume in template.spec["volumes"]:
        assert named(volume, places[volume["name"]]) in table
    assert set(re.findall(r"on `(/[\w/]+)`", table)) <= set(places.values())


def named(volume: dict[str, Any], place: str) -> str:
    """What the table calls a volume."""
    if "secret" in volume:
        return f"Secret `{volume['secret']['secretName']}`"
    if "persistentVolumeClaim" in volume:
        return f"claim `{volume['persistentVolumeClaim']['claimName']}` on `{place}`"
    return f"`emptyDir` {'in memory ' if volume['emptyDir'].get('medium') == 'Memory' else ''}on `{place}`"


def test_signals_are_those_that_stop_a_run() -> None:
    config = Config()
    first = section("Signals and exit codes").strip().split("\n\n")[0]
    stops = {*stop_signals(config), signal.SIGHUP} - {PARENT_GONE}  # without SIGHUP where these tests are under nohup
    assert set(re.findall(r"SIG[A-Z]+\d?", first)) == {signal.Signals(number).name for number in stops}
    assert f"{config.snapshots.leave_seconds:g} s" in first


@pytest.mark.processes
@needs_kubectl
def test_everybody_waits_for_as_long_as_the_table_says() -> None:
    rows = {
        row.split("|")[1].strip(): row.split("|")[4]
        for row in section("Signals and exit codes").splitlines()[3:]
        if row.startswith("|")
    }
    given = {
        "torchrun": [PodTemplate.of("trainjob").environment(0)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]],
        "Slurm, before a time limit": re.findall(
            r"--signal=B:USR1@(\d+)", (DEPLOY / "slurm" / "onward.sbatch").read_text()
        ),
        "`docker stop`": [COMPOSE["train"]["stop_grace_period"].removesuffix("s")],
        "Kubernetes": [f"{PodTemplate.of(overlay).grace:g}" for overlay in EVERY],
    }
    for who, seconds in given.items():
        assert set(seconds) == set(re.findall(r"\d+", rows[who])), who
