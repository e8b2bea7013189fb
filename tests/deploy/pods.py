"""Runs the pods of `deploy/kubernetes` on hosts of the laboratory: everything that matters is read out of the YAML.

A host stands for a pod's node and network, namespaces of mounts and processes for its container: read-only root,
volumes, the user and group of the security context, no capabilities, and the command as process 1 unless the pod shares
its process namespace. What follows when a pod has ended is decided by the Job's own `podFailurePolicy`. What Kubeflow's
Trainer and JobSet add to a TrainJob is written here as their sources have it (Trainer 2: plugins `torch`, `jobset`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.laboratory.hosts import Host, Laboratory
from tests.recovery import descendants
from tests.runs import LIMIT, ROOT, Process
from tests.waiting import wait_until

OVERLAYS = ROOT / "deploy" / "kubernetes"
CORE, SEVERAL = ("one-pod", "pod-per-gpu"), ("pod-per-gpu", "trainjob")
"""Overlays that need nothing but Kubernetes; those with several pods."""
EVERY = ("one-pod", *SEVERAL)
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="overlays are put together by kubectl")
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
TRAINER = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
"""Label of the job that Kubeflow Trainer gives its variables, in its container `node`."""
TRAINER_PORT = 29500
CONTAINER = """
set -e
home=$1; shift
[ -d /runs ] || mkdir -p /runs
[ -d /configs ] || mkdir -p /configs
{mounts}
mount --bind "$home/configs" /configs
n=0; for part in {image}; do n=$((n + 1)); mkdir -p /run/image/$n; mount --bind "$part" /run/image/$n; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for closed in {closed}; do mount -t tmpfs -o mode=755 tmpfs "$closed"; done
n=0; for part in {image}; do
  n=$((n + 1)); mkdir -p "$part"; mount --bind /run/image/$n "$part"; mount -o remount,bind,ro "$part"
done
mount -o remount,bind,ro /
cd /
{start} setpriv --reuid {user} --regid {group} --groups {groups} --no-new-privs --bounding-set -all --inh-caps -all \
    env -i "$@" {then}
"""
"""Shell: what a container runtime does before the command."""
IMAGE = (str(ROOT), sys.base_prefix)
"""What an image would hold: the clone with its environment, and Python."""


def closed_above(path: Path) -> str | None:
    """The highest folder above a path that only its owner may enter, root's home for example."""
    return next((str(each) for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


@functools.cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay, as `kubectl apply -k` would send them."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@dataclass(frozen=True)
class PodTemplate:
    """How the pods of a job are made.

    Args:
        spec: of a pod.
        count: pods that the job has.
        policy: rules of its `podFailurePolicy`.
        name: of the job; pod N is called that and its number, below `subdomain`.
        subdomain: where the names are looked up; empty where pods have none.
        together: one pod that fails has all of them replaced, also those that have ended well.
    """

    spec: dict[str, Any]
    count: int
    policy: list[dict[str, Any]]
    name: str
    subdomain: str
    together: bool = False

    @classmethod
    def of(cls, overlay: str) -> PodTemplate:
        """That of the one Job or TrainJob of an overlay."""
        found = {each["kind"]: each for each in rendered(overlay)}
        if "TrainJob" in found:
            return cls._of_train_job(found["TrainJob"], found["TrainingRuntime"]["spec"])
        job = found["Job"]
        spec, pod = job["spec"], job["spec"]["template"]["spec"]
        rules = spec["podFailurePolicy"]["rules"]
        return cls(pod, spec.get("completions", 1), rules, job["metadata"]["name"], pod.get("subdomain", ""))

    @classmethod
    def _of_train_job(cls, job: dict[str, Any], runtime: dict[str, Any]) -> PodTemplate:
        """What Kubeflow Trainer makes of the runtime: a JobSet with an Indexed Job, a pod a node."""
        (replicated,) = runtime["template"]["spec"]["replicatedJobs"]
        assert replicated["template"]["metadata"]["labels"].items() >= TRAINER.items()
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        spec = replicated["template"]["spec"]
        pod = copy.deepcopy(spec["template"]["spec"])
        (container,) = pod["containers"]
        assert container["name"] == "node"
        count = trainer.get("numNodes", runtime["mlPolicy"]["numNodes"])
        injected = {
            "PET_NNODES": count,
            "PET_NPROC_PER_NODE": trainer.get("numProcPerNode", "auto"),
            "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
            "PET_MASTER_PORT": TRAINER_PORT,
        }
        container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
        container["env"] = [
            *container.get("env", []),
            *trainer.get("env", []),
            *({"name": key, "value": str(value)} for key, value in injected.items()),
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        ]
        pod.setdefault("restartPolicy", "OnFailure")  # as JobSet does
        rules = spec.get("podFailurePolicy", {}).get("rules", [])
        together = spec.get("backoffLimit", 6) == 0 and runtime["template"]["spec"]["failurePolicy"]["maxRestarts"] > 0
        return cls(pod, count, rules, f"{name}-{replicated['name']}-0", name, together)

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.spec["containers"]
        return dict(only)

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return float(self.spec["terminationGracePeriodSeconds"])

    def host(self, index: int) -> str:
        """The name by which other pods find one."""
        return f"{self.name}-{index}.{self.subdomain}"

    def environment(self, index: int) -> dict[str, str]:
        """What the container finds in its environment."""
        found = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp",
            "USER": "onward",
        }
        for variable in self.container.get("env", []):
            source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            assert source in (None, INDEX), f"{source} is not known here"
            found[variable["name"]] = variable["value"] if source is None else str(index)
        return found

    def decision(self, code: int, disrupted: bool = False) -> str:
        """What the job does with a pod that has ended: the action of the first rule that fits, or else `Count`."""
        for rule in self.policy:
            codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", [])
            if codes and (code in codes["values"]) == (codes["operator"] == "In") and code:
                return str(rule["action"])
            if disrupted and any(condition["type"] == "DisruptionTarget" for condition in conditions):
                return str(rule["action"])
        return "Count"


class Pods:
    """The pods of one job; ended together.

    Args:
        lab: pod N runs on host N + 1.
        template: of the pods.
        config: what the image has as /configs/quickstart.yaml.
        key: content of the Secret, if the pods mount one.
    """

    def __init__(self, lab: Laboratory, template: PodTemplate, config: str, key: str = "") -> None:
        self.lab, self.template, self._key = lab, template, key
        self.volumes = lab.shared / "volumes"
        (lab.shared / "configs").mkdir()
        (lab.shared / "configs" / "quickstart.yaml").write_text(config)
        for folder in (lab.folder, lab.shared):
            folder.chmod(0o755)
        self.pods: dict[int, Process] = {}

    def start(self, index: int, host: Host | None = None) -> Process:
        """Start a pod, or the one that replaces it."""
        context = self.template.spec["securityContext"]
        mounts = [
            self._mount(volume, context["fsGroup"], shlex.quote(place["mountPath"]))
            for place in self.template.container["volumeMounts"]
            for volume in self.template.spec["volumes"]
            if volume["name"] == place["name"] and place["mountPath"] != "/tmp"
        ]
        shared = self.template.spec.get("shareProcessNamespace", False)
        script = CONTAINER.format(
            start="" if shared else "exec",
            then="& wait $!" if shared else "",  # a pause is process 1, with whose end all of the container ends
            mounts="\n".join(mounts),
            image=shlex.join(IMAGE),
            closed=shlex.join(sorted({top for path in IMAGE if (top := closed_above(Path(path)))})),
            user=context["runAsUser"],
            group=context["runAsGroup"],
            groups=context["fsGroup"],
        )
        container = self.template.container
        settings = [f"{name}={value}" for name, value in self.template.environment(index).items()]
        command = [*container["command"], *container["args"]]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = [*unshare, "sh", "-c", script, "sh", str(self.lab.shared), *settings, *command]
        self.pods[index] = (host or self.lab[index + 1]).start(inside)
        return self.pods[index]

    def signal(self, index: int, number: int) -> None:
        """To the command of a pod, once it runs."""
        os.kill(wait_until(lambda: self._command(index), lambda: f"pod {index} runs: {self.said()}"), number)

    def until_all_run(self) -> None:
        """Until the command of every pod has been started."""
        for index in self.pods:
            self.signal(index, 0)

    def _command(self, index: int) -> int | None:
        """The process of a pod's command, which is Python: the first below what makes the container."""
        for pid in descendants(self.pods[index].pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name.startswith("python"):
                    return pid
        return None

    def ended(self, index: int, timeout: float = LIMIT) -> int:
        """The exit code of a pod; minus the signal that ended it becomes what Kubernetes would say."""
        code = self.pods[index].wait(timeout)
        return code if code >= 0 else 128 - code

    def said(self) -> str:
        """All that the pods have printed."""
        return "\n".join(f"{index}: {pod.out} {pod.err}" for index, pod in self.pods.items())

    def close(self) -> None:
        """End what is left."""
        for pod in self.pods.values():
            for pid in descendants(pod.pid) if pod.poll() is None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pod.wait(LIMIT)

    def _mount(self, volume: dict[str, Any], group: int, place: str) -> str:
        if "emptyDir" in volume:
            return f"mount -t tmpfs -o mode=2777,gid={group} tmpfs {place}"
        if "persistentVolumeClaim" in volume:
            folder = self.volumes / volume["persistentVolumeClaim"]["claimName"]
            mode = 0o2775
        else:
            folder, mode = self.volumes / volume["secret"]["secretName"], 0o750
        if not folder.exists():
            folder.mkdir(parents=True)
            if "secret" in volume:
                (folder / "key").write_text(self._key)
                (folder / "key").chmod(volume["secret"]["defaultMode"])
                shutil.chown(folder / "key", 0, group)
            shutil.chown(folder, 0, group)
            folder.chmod(mode)
        return f"mkdir -p {place}; mount --bind {shlex.quote(str(folder))} {place}"
