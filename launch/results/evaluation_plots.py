"""The figures of one evaluation: accuracy by block, spectra of the features, and what corruptions cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from launch.results.figure_style import (
    PALETTE,
    block_axis,
    block_colours,
    label_outer,
    legend_below,
    lettering,
    named_blocks,
    panels,
    save,
    series_style,
    styled,
)
from launch.results.measure_names import CORRUPTION, QUALITY, features_of, in_order, measure_words, quantity
from pipeline.config.places import FEATURES, Feature
from pipeline.evaluation.document import EvaluationResults, Record

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
"""Of the corruption benchmark (Hendrycks and Dietterich, arXiv 1903.12261, figure 1); the last of each is extra."""
_FLOOR = 1e-8
"""Eigenvalues below this share of the largest are what rounding left of nothing: features are float32."""


def write_plots(document: EvaluationResults, folder: Path) -> list[Path]:
    """Draw what there is: `accuracy-DATA`, `spectra` and `corruptions-DATA-FEATURE`, each as PNG and SVG.

    Args:
        document: with or without results.
        folder: made if there is anything to draw; figures of these names in it are replaced or removed.

    Returns:
        The files that were written.

    Raises:
        UserError: they cannot be written.
    """
    written: list[Path] = []
    with styled():
        for data in dict.fromkeys(record.data for record in document.results):
            records = [record for record in document.results if record.data == data]
            written += _accuracy(data, records, folder)
            written += _corruptions(data, records, folder)
        written += _spectra(document, folder)
    _remove_others(folder, written)
    return written


def _remove_others(folder: Path, written: Sequence[Path]) -> None:
    """Figures of an earlier evaluation would be taken for this one's."""
    for path in sorted(folder.glob("*")):
        if path not in written and re.fullmatch(r"((accuracy|corruptions)-.+|spectra)\.(png|svg)", path.name):
            with suppress(OSError):
                path.unlink()


def _accuracy(data: str, records: Sequence[Record], folder: Path) -> list[Path]:
    """An axes a feature, a line a measure, all on one scale."""
    chosen = [record for record in records if record.metric == "top1" and quantity(record).family != CORRUPTION]
    features, measures = features_of(chosen), in_order(map(quantity, chosen))
    if not chosen:
        return []
    figure, axes = panels(features, columns=3, height=3.8, sharex=True, sharey=True)
    for each, feature in zip(axes, features, strict=True):
        for index, measure in enumerate(measures):
            points = sorted((r.block, r.value) for r in chosen if r.feature == feature and quantity(r) == measure)
            each.plot([x for x, _ in points], [100 * y for _, y in points], **series_style(index))
    block_axis(axes)
    label_outer(axes, 3, "block", "top-1 accuracy, %")
    figure.suptitle(lettering(data), fontsize="medium")
    handles = [Line2D([], [], **series_style(index)) for index in range(len(measures))]
    legend_below(figure, handles, [" ".join(measure_words(measure.measure)) for measure in measures])
    return save(figure, folder, "accuracy", data)


def _corruptions(data: str, records: Sequence[Record], folder: Path) -> list[Path]:
    """A figure a feature, an axes a family of corruptions, a line a block: the family's mean error."""
    written = []
    for feature in features_of(records):
        errors = _errors(record for record in records if record.feature == feature)
        if not errors:
            continue
        families = _families(dict.fromkeys(name for name, _, _ in errors))
        colours = block_colours(sorted({block for _, block, _ in errors}))
        severities = sorted({severity for _, _, severity in errors})
        titles = [f"{family}, mean of {len(names)}" for family, names in families.items()]
        figure, axes = panels(titles, columns=2, height=2.6, sharex=True, sharey=True)
        for each, names in zip(axes, families.values(), strict=True):
            for block, colour in colours.items():
                means = {
                    severity: 100 * float(np.mean(found))
                    for severity in severities
                    if (found := [errors[name, block, severity] for name in names if (name, block, severity) in errors])
                }
                each.plot(list(means), list(means.values()), color=colour, **_DOT)
            each.set_xticks(severities)
        label_outer(axes, 2, "severity (0: clean)" if 0 in severities else "severity", "error, %")
        figure.suptitle(lettering(f"{data}, {feature}"), fontsize="medium")
        named = named_blocks(colours)
        handles = [Line2D([], [], color=colours[block], **_DOT) for block in named]
        legend_below(figure, handles, [f"block {block}" for block in named])
        written += save(figure, folder, "corruptions", data, feature)
    return written


_DOT: dict[str, Any] = {"marker": "o", "markeredgecolor": "white", "markeredgewidth": 0.8}


def _errors(records: Iterable[Record]) -> dict[tuple[str, int, int], float]:
    """The error by corruption, block and severity; severity 0 of every corruption are the clean images."""
    errors: dict[tuple[str, int, int], float] = {}
    clean: dict[int, float] = {}
    for record in records:
        family, *rest = record.measure.split("/")
        if family == CORRUPTION and record.metric == "error":
            if rest == ["clean"]:
                clean[record.block] = record.value
            elif len(rest) == 2 and rest[1] in ("1", "2", "3", "4", "5"):
                errors[rest[0], record.block, int(rest[1])] = record.value
    names = {(name, block) for name, block, _ in errors}
    return errors | {(name, block, 0): clean[block] for name, block in names if block in clean}


def _families(names: Mapping[str, None]) -> dict[str, list[str]]:
    """The corruptions that were measured, by family; those that no benchmark names are together."""
    benchmark = {name for family in FAMILIES.values() for name in family}
    grouped = {family: [name for name in members if name in names] for family, members in FAMILIES.items()}
    grouped["other"] = [name for name in names if name not in benchmark]
    return {family: members for family, members in grouped.items() if members}


def _spectra(document: EvaluationResults, folder: Path) -> list[Path]:
    """An axes a feature, a line a block, with the ranks that alpha-ReQ is fitted to and the power law it finds."""
    spectra_of: dict[Feature, dict[int, NDArray[np.float64]]] = {feature: {} for feature in FEATURES}
    for key, values in document.spectra.items():
        block, _, feature = key.partition(".")
        shares = _shares(values)
        if shares.size:
            spectra_of[next(each for each in FEATURES if each == feature)][int(block)] = shares
    spectra_of = {feature: spectra for feature, spectra in spectra_of.items() if spectra}
    if not spectra_of:
        return []
    colours = block_colours(sorted({block for spectra in spectra_of.values() for block in spectra}))
    ranks = _ranks(document)
    figure, axes = panels(list(spectra_of), columns=3, height=3.8, sharex=True, sharey=True)
    for each, (feature, spectra) in zip(axes, spectra_of.items(), strict=True):
        each.set(xscale="log", yscale="log")
        for number, curve in sorted(spectra.items()):
            each.plot(np.arange(1, curve.size + 1), curve, color=colours[number])
            if ranks is not None:
                _draw_fit(each, curve, ranks, _alpha(document, number, feature))
        if ranks is not None:
            each.axvspan(*ranks, color="#000000", alpha=0.07, linewidth=0)
    label_outer(axes, 3, "rank", "eigenvalue / largest")
    named = named_blocks(colours)
    handles: list[Line2D | Patch] = [Line2D([], [], color=colours[block]) for block in named]
    labels = [f"block {block}" for block in named]
    if ranks is not None:
        handles += [Patch(color="#000000", alpha=0.07, linewidth=0), Line2D([], [], **_FIT)]
        labels += ["α-ReQ ranks", "α-ReQ fit"]
    legend_below(figure, handles, labels)
    return save(figure, folder, "spectra")


_FIT: dict[str, Any] = {"color": PALETTE[1], "linestyle": (0, (3, 2)), "linewidth": 1.4}


def _shares(values: Sequence[float]) -> NDArray[np.float64]:
    """Eigenvalues as shares of the largest, down to the first that is nothing. Shape [D] or less."""
    spectrum = np.asarray(values, dtype=np.float64)
    if not spectrum.size or spectrum[0] <= 0.0:
        return np.empty(0)
    with np.errstate(over="ignore"):
        shares: NDArray[np.float64] = spectrum / spectrum[0]
    below = np.flatnonzero(~(shares > _FLOOR))
    return shares[: below[0]] if below.size else shares


def _draw_fit(axes: Axes, shares: NDArray[np.float64], ranks: tuple[int, int], alpha: float | None) -> None:
    """The line of slope -alpha through the ranks it was fitted to, by the fit's own weights, 1 / rank."""
    first, last = ranks[0], min(ranks[1], shares.size)
    if alpha is None or last <= first:
        return
    rank = np.arange(first, last + 1, dtype=np.float64)
    weights = 1.0 / rank
    level = float(np.sum(weights * (np.log(shares[first - 1 : last]) + alpha * np.log(rank))) / np.sum(weights))
    axes.plot(rank, np.exp(level - alpha * np.log(rank)), **_FIT)


def _ranks(document: EvaluationResults) -> tuple[int, int] | None:
    """First and last eigenvalue of alpha-ReQ's fit, if the settings of the evaluation say so."""
    quality = document.config.get("quality")
    ranks = quality.get("ranks") if isinstance(quality, dict) else None
    if isinstance(ranks, list) and len(ranks) == 2 and all(isinstance(rank, int) and rank > 0 for rank in ranks):
        return ranks[0], ranks[1]
    return None


def _alpha(document: EvaluationResults, block: int, feature: Feature) -> float | None:
    values = (
        record.value
        for record in document.results
        if (record.block, record.feature, record.measure, record.metric) == (block, feature, QUALITY, "alpha")
    )
    return next((value for value in values if math.isfinite(value)), None)
