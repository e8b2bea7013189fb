"""`evaluation.json`: what was measured of a run, as a flat list of records, and what one must know to trust it.

Tables, plots, comparisons and the choice of a run read this and nothing else, so it is checked before it is believed.
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
"""Of a document; spectra make the largest part, 100 kB each."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Record:
    """One number.

    Args:
        data: name of the data set it was measured on.
        block: counted from 1.
        feature: where in the block.
        measure: how: `linear/PROTOCOL`, `mlp`, `knn/K`, `few_labels/SHARE`,
            `few_labels/SHARE/unfrozen`, `quality`, `corruption/NAME/SEVERITY`,
            `corruption/mean`.
        metric: what: `top1`, `top5`, `error` (shares from 0 to 1), `lidar`, `rankme`, `alpha`, `alpha_r2`, `collapse`.
        value: finite; after the last epoch, where there are epochs.
        best: the best over all epochs, where there are epochs.
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
        """Whether it may be written: JSON has neither NaN nor infinity."""
        return math.isfinite(self.value) and (self.best is None or math.isfinite(self.best))


@dataclass(frozen=True)
class DataInfo:
    """What was measured on.

    Args:
        name: `data.name`.
        train_images: on which probes are fitted.
        test_images: on which they are tested; 0 if there are none.
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
class Document:
    """One evaluation.

    Args:
        run: the run directory, as it was given.
        checkpoint: steps of the snapshot that was measured; None for the trained network.
        config: the section `evaluation`, resolved.
        run_config_digest: SHA-256 of what was trained: the run's configuration without `evaluation` and `run_dir`.
        protocols: how each classifier was fitted, every number of it, by measure.
        seed: of what the evaluation drew.
        versions: of python, torch, torchvision and onward.
        data: what was measured on.
        created: time of day, ISO 8601 with its zone.
        results: every number, in the order in which they were measured.
        spectra: eigenvalues of the features, largest first, by `Place.key`.
        corruptions: what the corruption benchmark has to say beside its errors.
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

    def to_json(self) -> dict[str, Any]:
        """As it is written; `best` is left out where there is none."""
        results = [{k: v for k, v in asdict(r).items() if k != "best" or v is not None} for r in self.results]
        return {"format": FORMAT, **asdict(self), "results": results}

    @classmethod
    def from_json(cls, data: bytes | str, name: str) -> Document:
        """The inverse of `to_json`, from the bytes of a file.

        Raises:
            UserError: it is damaged, or no such document; names `name`.
        """
        try:
            values = json.loads(data)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise ValueError(f"'format' is not '{FORMAT}'")
            return _ADAPTER.validate_json(json.dumps(values))
        except (ValueError, RecursionError) as error:
            raise UserError(f"'{name}' is no evaluation ({_reason(error)}). Run 'onward evaluate RUN' again") from None

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> Document:
        """The document in a file of the run directory `root`, by default the folder that the file is in.

        Raises:
            UserError: naming the file, which is missing, damaged, or reached by a link.
        """
        try:
            data = read_whole(path, MAX_BYTES, root or path.parent)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"'{path}' cannot be read ({reason}). Run 'onward evaluate RUN' first") from None
        return cls.from_json(data, str(path))


_ADAPTER = TypeAdapter(Document)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:200]
    return " ".join(str(error).split())[:200]
