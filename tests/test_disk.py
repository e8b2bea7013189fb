"""Disks that are full or may not be written: training goes on where it can, and where it cannot the cause is told.

The disks are real: a small file system, or one mounted read-only, in a mount namespace that ends with the run. Where
neither root nor user namespaces are to be had, a folder without permission to write takes their place.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from launch.prepare.run_dir import begin_run
from pipeline.validation.loading import load_config
from tests.marks import slow
from tests.recovery import STEPS, Trial, disturbed, undisturbed
from tests.runs import TINY, train
from tests.session_server import NAMESPACES

pytestmark = pytest.mark.processes

NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


def can_mount() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


FULL = "mount -t tmpfs -o size=2400k none {folder}"
"""Room for one snapshot of the tiny network, and half of another."""
READ_ONLY = "mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
NO_SPACE = r"OSError: \[Errno 28\] No space left on device"
WAYS = {
    "full": (FULL, "No space left on device"),
    "read-only": (READ_ONLY, "Read-only file system"),
    "forbidden": ("", "Permission denied"),
}


def on_a_bad_disk(trial: Trial, folder: Path, mounting: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The run with `folder` on that disk."""
    if not mounting:
        folder.chmod(0o500)
        return trial.train(*overrides)
    script = f"{mounting.format(folder=shlex.quote(str(folder)))} && echo ready && exec cat"
    with subprocess.Popen([*NAMESPACE, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeps:
        assert keeps.stdin is not None
        assert keeps.stdout is not None
        assert keeps.stdout.readline() == b"ready\n"
        kinds = ("mnt",) if os.geteuid() == 0 else ("user", "mnt")
        entered = ":".join(f"/proc/{keeps.pid}/ns/{kind}" for kind in kinds)
        result = train(trial.folder, *STEPS, *overrides, environment={**trial.environment, NAMESPACES: entered})
        keeps.stdin.close()
    return result


def prepared(trial: Trial, *overrides: str) -> None:
    """The run directory as the command line makes it, so that there is something to mount on."""
    config = trial.folder / "tiny.yaml"
    config.write_text(TINY)
    trial.run.mkdir()
    begin_run(load_config(config, [*STEPS, *overrides]), trial.run)


@pytest.mark.parametrize("way", ["full", slow("read-only")] if can_mount() else ["forbidden"])
def test_a_run_without_room_for_snapshots_goes_on(tmp_path: Path, way: str) -> None:
    mounting, problem = WAYS[way]
    with disturbed(tmp_path) as trial:
        prepared(trial)
        snapshots = trial.run / "snapshots"
        snapshots.mkdir()
        result = on_a_bad_disk(trial, snapshots, mounting)
        assert (result.returncode, result.stderr) == (0, "")
        for steps in (8, 12) if way == "full" else (4, 8, 12):
            said = re.findall(
                rf"^no snapshot after {steps} steps: stage \d: '.*' could not be written \((.*)\)$", result.stdout, re.M
            )
            assert said == [problem], result.stdout
        assert ("no snapshot after 4 steps" in result.stdout) == (way != "full")
        assert trial.digest == undisturbed()


@pytest.mark.skipif(not can_mount(), reason="a small file system takes root or user namespaces")
@pytest.mark.parametrize(
    ("size", "overrides", "cause"),
    [
        # Whoever writes last finds no room.
        ("700k", (), rf"error: stage (\d) failed at step 11: {NO_SPACE}: '.*/final/stage_\1\.safetensors'"),
        slow("36k", ("runtime=serial",), rf"error: the serial run failed: {NO_SPACE}(: '.*')?", id="for anything"),
    ],
    ids=["for the weights", None],
)
def test_a_run_without_room_for_its_results_says_so(
    tmp_path: Path, size: str, overrides: tuple[str, ...], cause: str
) -> None:
    with disturbed(tmp_path) as trial:
        trial.run.mkdir()
        small = f"mount -t tmpfs -o size={size} none {{folder}}"
        result = on_a_bad_disk(trial, trial.run, small, "snapshots.every=100", *overrides)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert re.search(f"^{cause}$", result.stderr + result.stdout, re.M), result.stderr + result.stdout
