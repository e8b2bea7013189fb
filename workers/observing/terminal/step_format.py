"""The numbers of a step as text, the same in a log and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_LOSS = 8
"""Width of a loss in a table."""


def plain_line(line: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> str:
    """A line of `metrics.jsonl` for a log: `step 15/585  epoch 1/15  676.2 images/s  loss 2.7088 3.2875  3:36 left`.

    The step counts from 1 here. After the losses come `probe 61.2 63.0 %` where accuracies are measured, and the time
    left once it is known; `-` stands for what a stage does not have.
    """
    step = f"step {line['step'] + 1:>{len(str(total_steps))}}/{total_steps}"
    losses = " ".join("-" if stage["loss"] is None else f"{stage['loss']:.4f}" for stage in line["stages"])
    parts = [step, epochs(line["step"], total_steps, steps_per_epoch), speed(line), f"loss {losses}"]
    probed = accuracies(line)
    if any(share is not None for share in probed):
        parts.append(f"probe {' '.join('-' if share is None else f'{100 * share:.1f}' for share in probed)} %")
    if line.get("eta_seconds") is not None:
        parts.append(f"{clock(line['eta_seconds'])} left")
    return "  ".join(parts)


def epochs(step: int, total_steps: int, steps_per_epoch: int) -> str:
    """Epoch of a step (counted from 0), and the number of epochs."""
    return f"epoch {step // steps_per_epoch + 1}/{-(-total_steps // steps_per_epoch)}"


def speed(line: Mapping[str, Any]) -> str:
    """Throughput, right-aligned."""
    rate = line["images_per_second"]
    return f"{rate:7.1f} images/s" if rate else "first step done"


def accuracies(line: Mapping[str, Any]) -> list[float | None]:
    """Accuracy of every stage's online linear probe, or of its k-NN where it has none; 0 to 1."""
    measured = [stage.get("online") or {} for stage in line["stages"]]
    return [online.get("linear", online.get("knn")) for online in measured]


def loss_in_words(loss: float | None) -> str:
    """A loss for a narrow column: four decimals, fewer digits if it is large; `-` without a loss."""
    if loss is None:
        return "-"
    short = f"{loss:.4f}"
    return short if len(short) <= LONGEST_LOSS else f"{loss:.3g}"


def clock(seconds: float) -> str:
    """`1:05` or `2:03:09`."""
    minutes, secs = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
