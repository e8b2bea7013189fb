"""Manifests for Kubernetes: valid to the letter, and what they say trains, is killed, evicted and goes on."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.pods import CORE, EVERY, OVERLAYS, SEVERAL, Pods, PodTemplate, needs_kubectl, rendered
from tests.laboratory.hosts import laboratory, needs_laboratory
from tests.recovery import faults, pause, undisturbed
from tests.runs import LIMIT, TINY
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, needs_kubectl]
LENGTH = "{epochs: 40, max_steps: 120}"
CONFIG = TINY.replace("{epochs: 4, max_steps: 6}", LENGTH)


def steps(overlay: str) -> int:
    """`snapshots.every` of an overlay."""
    (every,) = (word for word in PodTemplate.of(overlay).container["args"] if word.startswith("snapshots.every="))
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
    for overlay in EVERY:
        template = PodTemplate.of(overlay)
        assert port in [each["name"] for each in template.container["ports"]]


@pytest.mark.parametrize("overlay", EVERY)
def test_there_is_time_for_a_snapshot_and_no_container_starts_again_alone(overlay: str) -> None:
    from pipeline.config import Config

    template = PodTemplate.of(overlay)
    leave = Config.model_fields["snapshots"].get_default(call_default_factory=True).leave_seconds
    assert template.grace > leave
    assert template.spec["restartPolicy"] == "Never"
    if overlay == "trainjob":  # torchrun has a time of its own, after which it kills its ranks
        assert leave < float(template.environment(0)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < template.grace


@pytest.mark.parametrize("overlay", CORE)
def test_a_mistake_is_not_tried_again_and_an_eviction_not_counted(overlay: str) -> None:
    template = PodTemplate.of(overlay)
    assert template.decision(2) == "FailJob"
    assert template.decision(1) == "Count"
    assert template.decision(130, disrupted=True) == "Ignore"


@contextlib.contextmanager
def pods(overlay: str, config: str) -> Iterator[Pods]:
    """The pods of an overlay, none of them started."""
    template = PodTemplate.of(overlay)
    with laboratory(template.count + 1, "none") as lab:
        made = Pods(lab, template, config, secrets.token_hex(32))
        try:
            yield made
        finally:
            made.close()


def let_names_resolve(made: Pods, moved: dict[int, int] | None = None) -> None:
    """As the headless Service does, some time after the pods have started."""
    lab, template = made.lab, made.template
    names = {index: lab[(moved or {}).get(index, index + 1)].address for index in range(template.count)}
    for host in lab.hosts:
        lines = [f"{address} {template.host(index)}" for index, address in names.items()]
        (lab.folder / "etc" / f"{host.name}.hosts").open("a").write("\n".join([*lines, ""]))


def run_of(made: Pods) -> Path:
    return made.volumes / "onward-runs" / "first"


def digest(made: Pods) -> str:
    found: dict[str, Any] = json.loads((run_of(made) / "report.json").read_text())
    return str(found["final_digest"])


def of_one_process() -> str:
    """The digest of the same training with nothing of Kubernetes."""
    return undisturbed(f"train={LENGTH}", "snapshots.every=50")


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
        assert digest(made) == of_one_process()


@pytest.mark.slow
@pytest.mark.timeout(8 * LIMIT)
@needs_laboratory
@pytest.mark.parametrize("overlay", SEVERAL)
def test_pods_whose_names_resolve_late_train_are_killed_and_evicted_and_go_on(overlay: str) -> None:
    held = faults(pause(Path("/runs/killed"), 2, 55), pause(Path("/runs/evicted"), 2, 90)).replace("=", ": ", 1)
    with pods(overlay, f"{CONFIG}\n{held}\n") as made:
        every = range(made.template.count)
        for index in every:
            made.start(index)
        made.until_all_run()
        let_names_resolve(made)
        until_there(run_of(made) / "snapshots" / f"step_{steps(overlay)}" / "manifest.json", made)
        made.signal(2, signal.SIGKILL)  # its node fails: every pod does, and is counted
        (made.volumes / "onward-runs" / "killed").touch()
        codes = [made.ended(index) for index in every]
        assert set(map(made.template.decision, codes)) == {"Count"}, made.said()
        for index in every:
            made.start(index)
        wait_until(lambda: lines(made) > 80, lambda: made.said(), LIMIT)
        made.signal(1, signal.SIGTERM)  # its node is drained: all stop after a snapshot
        (made.volumes / "onward-runs" / "evicted").touch()
        codes = [made.ended(index, made.template.grace) for index in every]
        assert (any if made.template.together else all)(codes), made.said()  # or a pod would count as done
        assert snapshots(made)[-1] > steps(overlay), made.said()
        moved = {1: len(every) + 1}  # on another node, with another address
        let_names_resolve(made, moved)
        for index in every:
            made.start(index, made.lab[moved.get(index, index + 1)])
        assert [made.ended(index) for index in every] == [0] * len(every), made.said()
        assert digest(made) == of_one_process()


def snapshots(made: Pods) -> list[int]:
    """Steps of the snapshots that are complete, the last one last."""
    found = (run_of(made) / "snapshots").glob("step_*/manifest.json")
    return sorted(int(each.parent.name.removeprefix("step_")) for each in found)


def lines(made: Pods) -> int:
    return (run_of(made) / "metrics.jsonl").read_bytes().count(b"\n")


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@needs_laboratory
def test_a_pod_that_is_evicted_while_it_starts_ends_at_once() -> None:
    with pods("one-pod", CONFIG) as made:
        made.start(0)
        made.signal(0, signal.SIGTERM)  # before Python has read a line of ours
        code = made.ended(0)
        assert code in (128 + signal.SIGTERM, 130), made.said()
        assert made.template.decision(code, disrupted=True) == "Ignore", made.said()


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@needs_laboratory
def test_a_mistake_in_the_configuration_fails_the_job_at_once() -> None:
    with pods("pod-per-gpu", CONFIG.replace("batch_size: 64", "batch_size: none")) as made:
        count = made.template.count
        let_names_resolve(made)
        for index in range(count):
            made.start(index)
        for index in range(count):
            assert made.template.decision(made.ended(index)) == "FailJob", made.said()
        assert "data.batch_size" in made.said()
