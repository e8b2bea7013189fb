"""Manifests for Kubernetes: valid to the letter, and what they say trains, is killed, evicted and goes on."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.pods import OVERLAYS, Pods, PodTemplate, rendered
from tests.laboratory.hosts import Laboratory, laboratory, needs_laboratory
from tests.recovery import fault, faults, pause
from tests.runs import LIMIT, TINY, report, train
from tests.waiting import wait_until

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="overlays are put together by kubectl")
pytestmark = [pytest.mark.processes, needs_kubectl]
CONFIG = TINY.replace("epochs: 4, max_steps: 6", "epochs: 40, max_steps: 120")
CORE = ("one-pod", "pod-per-gpu")


def steps(overlay: str) -> int:
    """`snapshots.every` of an overlay."""
    (every,) = (word for word in PodTemplate.of_job(overlay).container["args"] if word.startswith("snapshots.every="))
    return int(every.partition("=")[2])


@pytest.mark.parametrize("overlay", CORE)
def test_every_object_is_valid_to_the_letter(overlay: str) -> None:
    import kubernetes_validate as validate

    for found in rendered(overlay):
        validate.validate(found, "1.33", strict=True)
    wrong = json.loads(json.dumps(rendered(overlay)[-1]))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.33", strict=True)


def lost(given: Any, kept: Any, where: str = "") -> list[str]:
    """What a model has not taken over: fields that it does not know, and values that it has changed."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [each for name in given for each in lost(given[name], kept.get(name), f"{where}/{name}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [each for n, pair in enumerate(zip(given, kept, strict=True)) for each in lost(*pair, f"{where}/{n}")]
    return [] if given == kept else [where]


def test_the_job_for_kubeflow_is_valid_to_the_letter() -> None:
    from kubeflow_trainer_api import models

    kinds = {"TrainJob": models.TrainerV1alpha1TrainJob, "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime}
    found = {each["kind"]: each for each in rendered("trainjob")}
    for kind, model in kinds.items():
        assert lost(found[kind], json.loads(model.from_dict(found[kind]).to_json())) == []
    assert found["TrainJob"]["spec"]["runtimeRef"]["name"] == found["TrainingRuntime"]["metadata"]["name"]
    wrong = {**found["TrainJob"], "spec": {**found["TrainJob"]["spec"], "trainer": {"numNode": 2}}}
    assert lost(wrong, json.loads(kinds["TrainJob"].from_dict(wrong).to_json())) == ["/spec/trainer/numNode"]


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    found = {each["kind"]: each for each in rendered("monitoring")}
    rules = yaml.safe_load((OVERLAYS.parent / "prometheus" / "rules.yml").read_text())
    assert found["PrometheusRule"]["spec"] == rules
    (port,) = (each["port"] for each in found["PodMonitor"]["spec"]["podMetricsEndpoints"])
    for overlay in CORE:
        template = PodTemplate.of_job(overlay)
        assert port in [each["name"] for each in template.container["ports"]]


@pytest.mark.parametrize("overlay", CORE)
def test_there_is_time_for_a_snapshot_and_a_mistake_is_not_tried_again(overlay: str) -> None:
    from pipeline.config import Config

    template = PodTemplate.of_job(overlay)
    assert template.grace > Config.model_fields["snapshots"].get_default(call_default_factory=True).leave_seconds
    assert template.decision(2) == "FailJob"
    assert template.decision(1) == "Count"
    assert template.decision(130, disrupted=True) == "Ignore"


@contextlib.contextmanager
def pods(overlay: str, config: str) -> Iterator[Pods]:
    """The pods of an overlay, none of them started."""
    template = PodTemplate.of_job(overlay)
    with laboratory(template.count + 1, "none") as lab:
        made = Pods(lab, template, config, secrets.token_hex(32))
        try:
            yield made
        finally:
            made.close()


def let_names_resolve(lab: Laboratory, count: int, moved: dict[int, int] | None = None) -> None:
    """As the headless Service does, some time after the pods have started."""
    names = {index: lab[(moved or {}).get(index, index + 1)].address for index in range(count)}
    for host in lab.hosts:
        lines = [f"{address} onward-{index}.onward" for index, address in names.items()]
        (lab.folder / "etc" / f"{host.name}.hosts").open("a").write("\n".join([*lines, ""]))


def run_of(made: Pods) -> Path:
    return made.volumes / "onward-runs" / "first"


def digest(made: Pods) -> str:
    found: dict[str, Any] = json.loads((run_of(made) / "report.json").read_text())
    return str(found["final_digest"])


def undisturbed() -> str:
    """The digest of the same training in one process, with nothing of Kubernetes."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG)
        done = train(Path(folder), "runtime=serial", "snapshots.every=50", config=config)
        assert done.returncode == 0, done.stderr
        return str(report(Path(folder))["final_digest"])


def until_there(path: Path, made: Pods) -> None:
    wait_until(path.exists, lambda: f"{path}: {made.said()}", LIMIT)


@pytest.mark.slow
@pytest.mark.timeout(4 * LIMIT)
@needs_laboratory
def test_a_pod_that_is_evicted_takes_a_snapshot_within_its_grace_and_is_replaced() -> None:
    held = faults(pause(Path("/runs/go"), 2, 60)).replace("=", ": ", 1)
    with pods("one-pod", f"{CONFIG}\n{held}\n") as made:
        made.start(0)
        until_there(run_of(made) / "snapshots" / f"step_{steps('one-pod')}" / "manifest.json", made)
        made.signal(0, signal.SIGTERM)
        (made.volumes / "onward-runs" / "go").touch()
        code = made.ended(0, made.template.grace)
        assert code == 130, made.said()
        assert made.template.decision(code, disrupted=True) == "Ignore"
        made.start(0)
        assert made.ended(0) == 0, made.said()
        assert digest(made) == undisturbed()


@pytest.mark.slow
@pytest.mark.timeout(6 * LIMIT)
@needs_laboratory
def test_pods_whose_names_resolve_late_train_are_killed_and_evicted_and_go_on() -> None:
    killed = fault("kill", 3, 55)
    held = faults(killed, pause(Path("/runs/go"), 2, 90)).replace("=", ": ", 1)
    with pods("pod-per-gpu", f"{CONFIG}\n{held}\n") as made:
        count = made.template.count
        for index in range(count):
            made.start(index)
        let_names_resolve(made.lab, count)
        codes = [made.ended(index) for index in range(count)]  # a stage was killed: every pod fails, and is counted
        assert set(map(made.template.decision, codes)) == {"Count"}, made.said()
        for index in range(count):
            made.start(index)
        until_there(run_of(made) / "snapshots" / "step_50" / "manifest.json", made)
        wait_until(lambda: lines(made) > 80, lambda: made.said(), LIMIT)
        made.signal(1, signal.SIGTERM)  # its node is drained: all stop after a snapshot
        (made.volumes / "onward-runs" / "go").touch()
        codes = [made.ended(index, made.template.grace) for index in range(count)]
        assert all(codes), made.said()
        moved = {1: count + 1}  # on another node, with another address
        let_names_resolve(made.lab, count, moved)
        for index in range(count):
            made.start(index, made.lab[moved.get(index, index + 1)])
        assert [made.ended(index) for index in range(count)] == [0] * count, made.said()
        assert digest(made) == undisturbed()


def lines(made: Pods) -> int:
    return (run_of(made) / "metrics.jsonl").read_bytes().count(b"\n")


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@needs_laboratory
def test_a_mistake_in_the_configuration_fails_the_job_at_once() -> None:
    with pods("pod-per-gpu", CONFIG.replace("batch_size: 64", "batch_size: none")) as made:
        count = made.template.count
        let_names_resolve(made.lab, count)
        for index in range(count):
            made.start(index)
        for index in range(count):
            assert made.template.decision(made.ended(index)) == "FailJob", made.said()
        assert "data.batch_size" in made.said()
