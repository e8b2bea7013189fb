"""Evaluations for tests of what is shown of them: as `onward evaluate` writes them, with numbers that are made up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.places import FEATURES, Feature
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from pipeline.validation.loading import dump_config, load_config
from tests.runs import TINY
from workers.run.files import RunDir, write_json

DATA = "fashion_mnist_10k"
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


def document(results: Sequence[Record], run: str = "runs/a", **changes: Any) -> EvaluationResults:
    """An evaluation with these results; `changes` are other fields of the document."""
    fields: dict[str, Any] = {
        "run": run,
        "checkpoint": None,
        "config": EvaluationConfig().model_dump(mode="json"),
        "run_config_digest": "0" * 64,
        "seed": 0,
        "versions": {"python": "3.12.1", "torch": "2.15.0", "torchvision": "0.30.0", "onward": "0.1.0"},
        "data": DataInfo("fashion_mnist_10k", 8000, 2000, 10),
        "created": "2026-11-21T18:00:00+00:00",
    }
    return EvaluationResults(**{**fields, **changes}, results=list(results))


def full(blocks: int = 4, offset: float = 0.0, corruptions: bool = True, run: str = "runs/a") -> EvaluationResults:
    """Everything that may be in a document: probes, quality, corruptions, another data set, spectra."""
    results = [*_probes(DATA, blocks, offset), *_quality(blocks, offset), *_probes("cifar10", blocks, offset - 0.35)]
    if corruptions:
        results += _corruptions(blocks, offset)
    spectra = {
        f"{block}.{feature}": [math.exp(-0.004 * j) * j ** -(0.6 + 0.15 * block) for j in range(1, 513)]
        for block in range(1, blocks + 1)
        for feature in FEATURES
    }
    return document(results, run, spectra=spectra)


def _probes(data: str, blocks: int, offset: float) -> list[Record]:
    measures = ("linear/quick", "linear/blockwise", "mlp", "knn/20", "knn/200", "few_labels/0.01", "few_labels/0.1")
    results = []
    features: tuple[Feature, ...] = ("trunk", "expansion")
    for block in range(1, blocks + 1):
        for shift, feature in enumerate(features):
            for rank, measure in enumerate(measures):
                top1 = 0.72 + 0.03 * block - 0.002 * block**2 + 0.01 * shift - 0.012 * rank + offset
                best = top1 + 0.004 if measure == "linear/blockwise" else None
                results.append(Record(data, block, feature, measure, "top1", top1, best))
                results.append(Record(data, block, feature, measure, "top5", top1 + 0.15))
    return results


def _quality(blocks: int, offset: float) -> list[Record]:
    results = []
    for block in range(1, blocks + 1):
        for feature in FEATURES:
            size = 40.0 * block + 30 * FEATURES.index(feature)
            values = {
                "lidar": size * (1 + offset), "rankme": 1.7 * size * (1 + offset), "alpha": 0.68 + 0.15 * block,
                "alpha_r2": 0.987, "collapse": 0.0221 - 0.002 * block,
            }  # fmt: skip
            results += [Record(DATA, block, feature, "quality", metric, value) for metric, value in values.items()]
    return results


def _corruptions(blocks: int, offset: float) -> list[Record]:
    results = []
    features: tuple[Feature, ...] = ("trunk", "expansion")
    for block in range(1, blocks + 1):
        for feature in features:
            for family, names in enumerate(FAMILIES.values()):
                for order, name in enumerate(names):
                    errors = [0.2 + 0.04 * family + (0.05 + 0.01 * order) * s - 0.015 * block for s in range(1, 6)]
                    results += [
                        Record(DATA, block, feature, f"corruption/{name}/{s}", "error", error - offset)
                        for s, error in enumerate(errors, 1)
                    ]
                    results.append(Record(DATA, block, feature, f"corruption/{name}", "error", sum(errors) / 5))
                    results.append(Record(DATA, block, feature, f"corruption/{name}", "ce", sum(errors) / 2))
            results.append(Record(DATA, block, feature, "corruption/clean", "error", 0.2 - 0.015 * block))
            results.append(Record(DATA, block, feature, "corruption/mean", "error", 0.4 - 0.01 * block - offset))
            results.append(Record(DATA, block, feature, "corruption/mean", "mce", 0.9 - 0.01 * block - offset))
    return results


def write_run(folder: Path, evaluation: EvaluationResults | None, *overrides: str) -> Path:
    """A run directory with a configuration and, if given, its evaluation."""
    folder.mkdir(parents=True)
    RunDir(folder).config.write_text(_resolved(overrides))
    if evaluation is not None:
        write_json(folder / "evaluation.json", evaluation.to_json())
    return folder


@cache
def _resolved(overrides: tuple[str, ...]) -> str:
    with TemporaryDirectory() as folder:
        source = Path(folder) / "config.yaml"
        source.write_text(TINY)
        return dump_config(load_config(source, list(overrides)))
