"""Files of a run: paths from `RunDir`, with its docstrings; `reference/fields.md` has what is in them."""

from __future__ import annotations

import inspect
from pathlib import Path

from docs.site.markdown import code, generated, table
from workers.run.files import RunDir

WRITTEN = (
    "config provenance modules data_index metrics events coordinator logs report initial final backbone exported snapshots "
    "failure elsewhere trace merged_trace"
)
HIDDEN = "lock key faults replay repeated"
MORE = {
    "final/stage_K.safetensors": "Weights of stage K: block, head and optimizer, as `block.*`, `head.*` and `optimizer.*`.",
    "final/probe_K.safetensors": "The online linear probe of stage K (`evaluation.online.linear`); not part of the digest.",
    "snapshots/step_N/": "A snapshot after N steps. Without `manifest.json` it is incomplete and ignored.",
    "modules/start_N/": "Those that had changed when the run was resumed, for the Nth start.",
    "tensorboard/": "Written by the tracker `tensorboard`.",
    "report.html, report/": "The page of `onward report`, and its figures as PNG and SVG.",
    "evaluation.json, evaluation/": "Results of `onward evaluate`; see [below](#evaluationjson).",
    "logs/stage_K.nccl.json": "Flight record of NCCL, where a process hung in a collective.",
}
EVALUATION = """
| file | what it is |
|---|---|
| `RUN/evaluation.json` | Everything of the last evaluation: [its fields](fields.md#evaluationjson). Other commands read this file. |
| `RUN/evaluation/step_N.json` | The same of the snapshot after N steps, kept when the next evaluation replaces `evaluation.json`. |
| `RUN/evaluation/results.csv` | The records, one per line, with every digit: `run, checkpoint, data, block, feature, measure, metric, value, best, standard_error`. |
| `RUN/evaluation/results.md` | The printed tables, and one of the single corruptions. |
| `RUN/evaluation/accuracy-DATA.png`, `.svg` | Top-1 accuracy by block: one subplot per feature, one line per measure. |
| `RUN/evaluation/spectra.png`, `.svg` | Eigenvalues, log-log: one subplot per feature, one line per block. Gray: the ranks that alpha-ReQ is fitted to. Dashed: its power law. |
| `RUN/evaluation/corruptions-DATA-FEATURE.png`, `.svg` | Error by severity: one subplot per family of corruptions (their mean), one line per block. Severity 0 is the clean images. |
| `RUN/evaluation/features/` | Cached features; [may be deleted](../how-to/evaluate.md#the-feature-cache). |

Figures are 7 inches wide, readable at half of that, and safe for the colour-blind. The same numbers give the same bytes with
the same version of Matplotlib. Eigenvalues below 1e-8 of the largest are left out, since they are rounding.
"""


def page() -> str:
    """`reference/run-directory.md`."""
    return generated(
        "Files of a run",
        "A run writes to `runs/NAME-DATE-TIME/`, or to `run_dir`. The last lines of `onward train` name the folder. "
        "[Fields of the files](fields.md) has what is in the JSON files.\n",
        table(("file", "what it is"), [*_paths(WRITTEN), *([code_list(name), text] for name, text in MORE.items())]),
        "While a run lives its folder also has:\n",
        table(("file", "what it is"), _paths(HIDDEN)),
        "On several hosts without a shared folder, the others have `logs/`, `trace/`, `failure.json` and `elsewhere.json`.\n",
        "Weights, probes and snapshots are safetensors. `trace.json` has Chrome's trace event format. CSV files have their "
        "columns in their first line.\n",
        "## evaluation.json\n",
        EVALUATION.strip() + "\n",
    )


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
