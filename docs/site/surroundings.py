"""Exit codes, variables of the environment, and alarms."""

from __future__ import annotations

from docs.site.configuration import HEAD, _rows
from docs.site.markdown import code, generated, table
from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from pipeline.config.observing import AlarmsConfig
from workers.observing.alarms import GRADIENT_STEPS, MARGIN
from workers.stage.throttling import EVERY_SECONDS, STEADY
from workers.topology.rendezvous import START_SECONDS

CODES = {
    0: "Done. A run that had been trained to its end before ends so too.",
    EXIT_FAILED: "Training failed; one line on stderr names stage, step and cause, and `failure.json` keeps it. "
    "Ranks on several hosts have not found each other. `onward doctor`: something is wrong. "
    "`onward verify`, `onward replay`, `onward bisect`: bits differ. Any command: its output could not be written.",
    EXIT_BAD_INPUT: "Bad input: a key, a file, a device, a port. One line says what is allowed. No training was started.",
    EXIT_INTERRUPTED: "Interrupted by Ctrl-C or a signal, after a snapshot.",
}
VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "Read by CUDA: the GPUs that a run may use, which count from 0 in `device`.",
    "TMPDIR": "Folder for sockets, keys and caches of a run, each in a folder of mode 0700 below it.",
    "ONWARD_KEY_FILE": "File with the key of a run on several hosts; the same on each. "
    "[Security](../../deploy/security.md) says how to make one.",
    "ONWARD_PORT": "In the container: the port that its health check asks, that of `metrics.port`; 9464 if not set.",
    "ONWARD_PYTHON": "For `deploy/slurm/onward.sbatch`: the Python that has Onward.",
    "PYTHONPATH": "Where modules that a configuration names (`MODULE:NAME`) are looked for, before the working directory.",
    "OMP_NUM_THREADS": "Replaced in the processes of a run by `threads`; read for ranks of torchrun and srun.",
    "OMP_WAIT_POLICY, KMP_BLOCKTIME, GOMP_SPINCOUNT": "How threads wait. Set to sleep where cores are few, unless you set one.",
    "GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME": "Interface of Gloo and of TensorPipe. Set by a run unless you set it: "
    "loopback on one host, that of the address which all hosts reach on several.",
    "NCCL_SOCKET_IFNAME": "Interface of NCCL: loopback on one host; on several NCCL chooses, unless you set it.",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "Set it to 1 on every host for `torchrun --max-restarts`.",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "Read by torchrun: seconds for which it waits for its ranks once it was asked to "
    "stop; 30 if not set. A snapshot may take `snapshots.leave_seconds`.",
    "TORCHINDUCTOR_CACHE_DIR, TRITON_CACHE_DIR": "Caches of compiled code; used if the folder is yours alone.",
    "CUBLAS_WORKSPACE_CONFIG": "Set by a run with `determinism.level` `strict` or `warn`.",
    "DS_ACCELERATOR": "Device type of DeepSpeed; set to `cpu` for stages on a CPU unless you set it.",
    "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT": "Set by torchrun for its ranks. "
    "For srun, `MASTER_ADDR` and `MASTER_PORT` name another meeting point. `onward train` ignores all of them.",
    "TORCHELASTIC_USE_AGENT_STORE, TORCHELASTIC_RUN_ID, TORCHELASTIC_RESTART_COUNT, TORCHELASTIC_MAX_RESTARTS": "Set by torchrun; read by its ranks.",
    "SLURM_PROCID, SLURM_NTASKS, SLURM_STEP_ID, SLURM_JOB_ID, SLURM_TASKS_PER_NODE, SLURM_DISTRIBUTION": "Set by srun; read by its tasks.",
    "SSH_CONNECTION": "Set by sshd: the address by which `onward train --hosts` reached a host is tried first.",
    "XDG_CACHE_HOME": "In place of `~/.cache`, for caches of a run.",
    "CXX": "The C++ compiler that `precision.compile` needs on a CPU; `g++` if not set.",
    "SUDO_UID": "Who called `sudo`: a run directory of that user is trusted as your own.",
    "TERM, COLUMNS, LINES": "What the terminal can do, and its size; with `TERM=dumb` plain lines are written.",
    "JPY_PARENT_PID, MPLBACKEND": "Set by Jupyter for its kernels, and by them (the inline backend): a notebook gets few lines of progress.",
    "NO_COLOR": "Set to anything: no colours. `FORCE_COLOR` puts no control codes into a file or pipe.",
    "LC_ALL, LANG": "A locale that has only ASCII: the progress is drawn with that.",
}
"""Variables that change what a command does, by name; those that belong together in one row."""
ALARMS = {
    "nonfinite": ("A loss is not finite, or gradients are not for "
                  f"{GRADIENT_STEPS} steps in a row. It cannot be switched off.", ""),
    "collapse": ("Features of a stage spread less than this share of what they could (collapse level over 1/sqrt(d)). "
                 "It needs `evaluation.online.quality_every`.", "collapse_below"),
    "starved": ("Stage 1 waits for images for more than this share of the time.", "starved_above"),
    "bottleneck": ("A process computes most of the time, and more than so many times as long as the others that learn, on average. "
                   "Not where one process trains all, nor in mode `sequential`.", "bottleneck_above"),
    "silent": (f"A stage that the run waits for has sent nothing for so many seconds (and {START_SECONDS:.0f} more at its "
               "first step).", "silent_seconds"),
    "throttled": (f"The GPU of a stage was slowed down for {STEADY * EVERY_SECONDS:.0f} seconds: by its power cap, by heat, by its board or by a "
                  "power brake. It needs the package `nvidia-ml-py` (the extra `nvml`), which asks NVIDIA's driver every "
                  f"{EVERY_SECONDS:.0f} seconds; without it, or where the driver does not say, there is no such alarm. It was tried with a "
                  "library of the tests' own, not on a GPU.", ""),
    "mismatch": ("A step that was done again, by a run that goes on or a stage that comes back, has other bits than it had. It needs "
                 "`digests.every`, stays until the run is started again, and cannot be switched off. "
                 "[Has a machine gone bad?](../concepts/exactness.md#has-a-machine-gone-bad)", ""),
}  # fmt: skip
"""When each alarm is raised, and the key of its limit."""


def exit_codes() -> str:
    """`reference/exit-codes.md`."""
    codes = table(("exit code", "meaning"), [[code(number), text] for number, text in CODES.items()])
    rows = [[", ".join(map(code, names.split(", "))), text] for names, text in VARIABLES.items()]
    said = "All other variables change nothing of a run: a test puts what jobs, shells and services set around one.\n"
    variables = table(("variable", "what it does"), rows)
    return generated("Exit codes and environment variables", codes, "## Environment variables\n", said, variables)


def alarms() -> str:
    """`reference/alarms.md`."""
    text = (
        "An alarm is raised once, and cleared when its cause has clearly gone: when the value is past the limit by "
        f"{100 * MARGIN:.0f} % of it.\nBoth are printed, written to `events.jsonl` and shown on the live page. "
        "`onward_alarm{alarm}` is 1 in between. Each message says what to do.\n"
    )
    rows = [[code(name), when, code(f"alarms.{key}") if key else ""] for name, (when, key) in ALARMS.items()]
    more = (
        "Prometheus has alerts of its own, for people who do not watch the run: "
        "[the table](../../deploy/prometheus/README.md).\n"
    )
    keys = table(HEAD, _rows(AlarmsConfig, "alarms.", list(AlarmsConfig.model_fields)))
    return generated("Alarms", text, table(("alarm", "when", "limit"), rows), "## Keys\n", keys, more)
