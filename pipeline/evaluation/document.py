"""`evaluation.json`: the results of an evaluation as a flat list of records, with its settings and versions.

Tables, plots, `compare` and `select` read only this file, so it is validated when it is read.
"""

from __future__ import annotations

import json
import math
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.config.places import Feature, Place
from pipeline.errors import UserError
from pipeline.ordinary_files import read_whole

FORMAT: Literal["onward-evaluation-1"] = "onward-evaluation-1"
MAX_BYTES = 256 * 1024 * 1024
"""Largest file that is read; spectra make the largest part, 100 kB each."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Record:
    """One measured number.

    Args:
        data: name of the data set it was measured on.
        block: counted from 1.
        feature: of the block.
        measure: `linear/PROTOCOL`, `mlp`, `knn/K`, `few_labels/SHARE`,
            `few_labels/SHARE/unfrozen`, `quality`, `corruption/NAME/SEVERITY`,
            `corruption/mean`.
        metric: `top1`, `top5`, `error` (shares from 0 to 1), `lidar`, `rankme`, `alpha`, `alpha_r2`, `collapse`.
        value: finite; after the last epoch, if there are epochs.
        best: the best over all epochs, if there are epochs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    data: Name
    block: Annotated[int, Field(ge=1, lt=10**6)]
    feature: Feature
    measure: Name
    metric: Name
    _: KW_ONLY
    value: Number
    best: Number | None = None

    @property
    def place(self) -> Place:
        """Block and feature."""
        return Place(self.block, self.feature)

    @property
    def finite(self) -> bool:
        """Whether the record can be written: JSON has neither NaN nor infinity."""
        return math.isfinite(self.value) and (self.best is None or math.isfinite(self.best))


@dataclass(frozen=True)
class DataInfo:
    """The data set of an evaluation.

    Args:
        name: `data.name`.
        train_images: number of images that probes are fitted on.
        test_images: number of images that they are tested on; 0 if there are none.
        classes: 0 if the images have no labels.
        train_left_out, test_left_out: images that could not be decoded, not counted above (`data.on_error: skip`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Name
    train_images: Count
    test_images: Count
    classes: Count
    _: KW_ONLY
    train_left_out: Count = 0
    test_left_out: Count = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The results of one evaluation.

    Args:
        run: the run directory, as given on the command line.
        checkpoint: steps of the evaluated snapshot; None for the trained network.
        config: the section `evaluation`, resolved.
        run_config_digest: SHA-256 of the run's configuration without `evaluation` and `run_dir`.
        seed: of the evaluation's random numbers.
        versions: of python, torch, torchvision and onward.
        data: the data set.
        created: time of day, ISO 8601 with its zone.
        results: every number, in the order in which they were measured.
        spectra: eigenvalues of the features, largest first, by `Place.key`.
        corruptions: settings of the corruption benchmark.
        protocols: all hyperparameters of each classifier, by measure.
        tested: of other data sets (`evaluation.transfer`), by name, on how many images they were tested.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    run: str
    checkpoint: Annotated[int, Field(ge=1)] | None
    config: dict[str, Any]
    run_config_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    seed: int
    versions: dict[str, str]
    data: DataInfo
    created: str
    results: list[Record] = field(default_factory=list)
    spectra: dict[Annotated[str, Field(pattern=r"^[1-9]\d{0,5}\.(trunk|expansion|projector)$")], list[Number]] = field(
        default_factory=dict
    )
    corruptions: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    tested: dict[Name, Count] = field(default_factory=dict)

    def test_images(self, data: str) -> int:
        """On how many images classifiers were tested on a data set; 0 if that is not known."""
        return self.data.test_images if data == self.data.name else self.tested.get(data, 0)

    def to_json(self) -> dict[str, Any]:
        """The values that are written as JSON; `best` is left out where it is None."""
        results = [{k: v for k, v in asdict(r).items() if k != "best" or v is not None} for r in self.results]
        return {"format": FORMAT, **asdict(self), "results": results}

    @classmethod
    def from_json(cls, data: bytes | str, name: str) -> EvaluationResults:
        """The inverse of `to_json`, from the bytes of a file.

        Raises:
            UserError: the file is damaged, or no evaluation; the message has `name`.
        """
        try:
            values = json.loads(data)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise ValueError(f"'format' is not '{FORMAT}'")
            return _ADAPTER.validate_json(json.dumps(values))
        except (ValueError, RecursionError) as error:
            raise UserError(f"'{name}' is no evaluation ({_reason(error)}). Run 'onward evaluate RUN' again") from None

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> EvaluationResults:
        """Read a file in the run directory `root`, by default the folder of the file.

        Raises:
            UserError: the file is missing, damaged, or reached by a link; the message has its path.
        """
        try:
            data = read_whole(path, MAX_BYTES, root or path.parent)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"'{path}' cannot be read ({reason}). Run 'onward evaluate RUN' first") from None
        return cls.from_json(data, str(path))


_ADAPTER = TypeAdapter(EvaluationResults)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:200]
    return " ".join(str(error).split())[:200]
