"""Files of a run and their fields: paths from `RunDir`, fields from the records that are written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from docs.site.key_docs import args_of
from docs.site.markdown import code, generated, table
from workers.control.failures import KINDS, FailureReport
from workers.control.feed_report import PARTS, FeedMeasures
from workers.control.step_report import MemoryInUse, StepReport
from workers.observing.live.document import Document
from workers.observing.observer import Event
from workers.run.files import RunDir
from workers.snapshots.manifest import Manifest, StageFile

WRITTEN = (
    "config data_index metrics events coordinator logs report final snapshots failure elsewhere trace merged_trace"
)
HIDDEN = "lock key faults replay"
MORE = {
    "final/stage_K.safetensors": "Weights of stage K: block, head and optimizer, as `block.*`, `head.*` and `optimizer.*`.",
    "final/backbone.safetensors": "The trained backbone alone, under torchvision's names. "
    "[Use the backbone](../start/backbone.md).",
    "final/probe_K.safetensors": "The online linear probe of stage K (`evaluation.online.linear`); not part of the digest.",
    "snapshots/step_N/": "A snapshot after N steps. Without `manifest.json` it is incomplete and ignored.",
    "tensorboard/": "Written by the tracker `tensorboard`.",
    "report.html, report/": "The page of `onward report`, and its figures as PNG and SVG.",
    "evaluation.json, evaluation/": "Results of `onward evaluate`; see [below](#evaluationjson).",
    "logs/stage_K.nccl.json": "Flight record of NCCL, where a process hung in a collective.",
}
LINE = {
    "step": "Counted from 0.",
    "epoch": "Counted from 0.",
    "time": "When the last stage finished the step, in seconds since 1970.",
    "images": "Images of the step.",
    "images_per_second": "Over the last 20 seconds; 0 at the first step.",
    "eta_seconds": "Seconds left at that rate.",
    "feed_wait_seconds": "Total time that the pipeline waited for images.",
    "added": "What this step alone added: `seconds` since the step before (missing at the first step of an attempt, and where "
    "a process was replaced), and `feed_wait_seconds`.",
    "steps": "With `metrics.every` above 1: the number of steps in this line. `images` and all `added` are then sums, "
    "everything else is of the last step.",
    "stages": "One record per stage, below.",
}
STAGE_MORE = {
    "snapshot_seconds": "Time that the last snapshot of the stage took to be written.",
    "loss_max": "With `metrics.every` above 1: the largest loss of the line.",
    "added": "What this step alone added to each total (seconds with six decimals); what is 0 is left out.",
}
REPORT = {
    "runtime, mode, link": "How the run was computed. `link` is `none` in one process.",
    "determinism": "`determinism.level` of the run.",
    "images, seconds": "Of the whole run, all attempts together.",
    "images_per_second": "Of the last attempt, from its second step on.",
    "stages": "Per stage, of the whole run: shares of its time (`busy`, `wait_input`, `wait_output`, `copying`, 0 to 1), "
    "`busy_seconds`, `skipped`; where known `flops_per_second`, and `mfu`, its share of `peak_flops`.",
    "feed": "Of the last attempt: the fields below, with `shares` of each part of the work and `wait_share`, the share of time that the run waited.",
    "final_digest": "SHA-256 over names and bytes of the weights in `final/`, without probes.",
    "untrained, trained": "Accuracy of the quick linear probe per block: `block`, and `trunk` and `expansion`, 0 to 1.",
    "left_out": "Images that could not be decoded and are not in the probes, per part.",
    "to_be_measured": "Only while the probes are fitted, or if that was interrupted.",
}
FAILURE_MORE = {
    "step": "Step that the process was working on, counted from 0; null outside of steps.",
    "message": "The line that was printed.",
    "exit_code": "Of the command; see [exit codes](exit-codes.md).",
}
FEED_MORE = {
    "wait_seconds": "Seconds that the pipeline waited for batches.",
    "images": "Images in the batches that were handed over.",
    "seconds": f"Seconds of work of all workers together, by part: {', '.join(PARTS)}.",
}
HISTORY_MORE = {
    "id": "Where its reader is; given back, it gets what is new since.",
    "facts": "Name, path, configuration, stages and steps of the run; null in an update.",
    "now": "Throughput, alarms, and per stage shares of time, rates, skipped steps, restarts and latest values.",
    "events": "As in `events.jsonl`, in order.",
    "stride, start, steps, times": "Which steps the columns have: one of `stride`, from `start` on, and when each ended.",
    "columns": "Values by stage (0: the run) and name; null where nothing was measured.",
    "clock": "Time of this machine, in seconds since 1970.",
}
COORDINATOR = {
    "stages": "How many there are.",
    "metrics": "Address of the metrics.",
    "page": "Address of the live page, with `metrics.page`.",
}
EVALUATION = """
| file | what it is |
|---|---|
| `RUN/evaluation.json` | Everything of the last evaluation: `results`, a flat list of records; `spectra`, the eigenvalues, the largest first; settings, protocols, seed, versions, and a digest of the run's configuration. Other commands read this file. |
| `RUN/evaluation/step_N.json` | The same of the snapshot after N steps, kept when the next evaluation replaces `evaluation.json`. |
| `RUN/evaluation/results.csv` | The records, one per line, with every digit: `run, checkpoint, data, block, feature, measure, metric, value, best`. |
| `RUN/evaluation/results.md` | The printed tables, and one of the single corruptions. |
| `RUN/evaluation/accuracy-DATA.png`, `.svg` | Top-1 accuracy by block: one subplot per feature, one line per measure. |
| `RUN/evaluation/spectra.png`, `.svg` | Eigenvalues, log-log: one subplot per feature, one line per block. Gray: the ranks that alpha-ReQ is fitted to. Dashed: its power law. |
| `RUN/evaluation/corruptions-DATA-FEATURE.png`, `.svg` | Error by severity: one subplot per family of corruptions (their mean), one line per block. Severity 0 is the clean images. |
| `RUN/evaluation/features/` | Cached features; [may be deleted](../how-to/evaluate.md#the-feature-cache). |

A record: `{"data": "fashion_mnist_10k", "block": 2, "feature": "trunk", "measure": "linear/blockwise", "metric": "top1",
"value": 0.78, "best": 0.79}`. Values are shares from 0 to 1; tables and figures show percent. Where a classifier has epochs,
`value` is after the last one and `best` that of the best epoch. `train_left_out` and `test_left_out` of `data` count images
that could not be decoded. A new evaluation replaces the document; numbers are not merged.

Figures are 7 inches wide, readable at half of that, and safe for the colour-blind. The same numbers give the same bytes with
the same version of Matplotlib. Eigenvalues below 1e-8 of the largest are left out, since they are rounding.
"""
FLOPS = """
`flops` counts matrix products, convolutions and attention, a multiplication and an addition as two, at the first step of each
kind. What `memory.recompute` computes again counts too. A stage with `precision.compile=true` is not counted. `peak_flops` is
what the maker says of its GPU in its precision, from the table in `workers/stage/flops.py`. Stages that share a card are each
compared with all of it. More than a few `alloc_retries` mean that the GPU is nearly full.

Times, bytes and skipped steps of a stage are totals; they begin at 0 again when its process is replaced. Lines of versions
before these keys have no `added`. A key that is not measured is missing.
"""


def page() -> str:
    """`reference/run-directory.md`."""
    step = args_of(StepReport) | args_of(MemoryInUse)
    said = {"online": "Measures of `evaluation.online` at this step, by name; missing where there are none.",
            "memory_bytes": "Resident memory of the process, in bytes.",
            "cuda_bytes": "Bytes that PyTorch's allocator holds on the GPU.",
            "cuda_peak_bytes": "The most bytes that tensors took of the GPU at once, so far.",
            "peak_flops": "Operations per second that its device can do in its precision; missing where unknown.",
            "loss": "Loss of the block; missing where it has none or it is not finite.",
            "terms": "The parts of the loss by name, before their weights.", "learning_rate": "Of this step."}  # fmt: skip
    norms = "Euclidean norm of the {} of the stage; only at steps that measure it (`metrics.norms_every`)."
    step |= said | {"gradient_norm": norms.format("gradient"), "update_norm": norms.format("update")}
    step.pop("feed")
    document = args_of(Document)
    document.pop("rows")
    document |= HISTORY_MORE
    return generated(
        "Files of a run",
        "A run writes to `runs/NAME-DATE-TIME/`, or to `run_dir`. The last lines of `onward train` name the folder.\n",
        table(("file", "what it is"), [*_paths(WRITTEN), *([code_list(name), text] for name, text in MORE.items())]),
        "While a run lives its folder also has:\n",
        table(("file", "what it is"), _paths(HIDDEN)),
        "On several hosts without a shared folder, the others have `logs/`, `trace/`, `failure.json` and "
        "`elsewhere.json` (`host`, `run_dir`: who keeps the run).\n",
        "## metrics.jsonl\n", "One JSON object per line, one line per step.\n", _fields(LINE),
        "Each record of `stages`:\n", _fields(step | STAGE_MORE), FLOPS.strip() + "\n",
        "## events.jsonl\n", _fields(args_of(Event)),
        "## report.json\n", _fields(REPORT), "Fields of `feed`:\n", _fields(args_of(FeedMeasures) | FEED_MORE),
        "## failure.json\n", _fields(args_of(FailureReport) | {"kind": _kinds()} | FAILURE_MORE),
        "## coordinator.json\n", _fields(COORDINATOR),
        "## snapshots/step_N/manifest.json\n",
        _fields({"format": "1.", **args_of(Manifest)}), "Each of `stages`:\n", _fields(args_of(StageFile)),
        "## evaluation.json\n", EVALUATION.strip() + "\n",
        "## /history.json\n",
        "What the live page reads, at the address of the page. Options of trackers and other secrets are not in it.\n",
        _fields(document),
    )  # fmt: skip


def code_list(names: str) -> str:
    """Names that are separated by commas, each between backticks."""
    return ", ".join(code(name) for name in names.split(", "))


def _paths(names: str) -> list[list[str]]:
    run = RunDir(Path("RUN"))
    found = []
    for name in names.split():
        path = getattr(run, name).relative_to(run.path)
        doc = " ".join(inspect.getdoc(getattr(RunDir, name)).split())  # type: ignore[union-attr]
        found.append([code(path if path.suffix or path.name.startswith(".") else f"{path}/"), doc])
    return found


def _fields(fields: Mapping[str, str]) -> str:
    return table(("field", "what it is"), [[code_list(name), _sentence(text)] for name, text in fields.items()])


def _sentence(text: str) -> str:
    text = text.replace("None", "null")
    text = text if text.endswith((".", "`")) else f"{text}."
    return text[0].upper() + text[1:] if text else text


def _kinds() -> str:
    return f"One of {', '.join(map(code, KINDS))}."
