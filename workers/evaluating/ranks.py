"""Several processes that torchrun started share the work of making features; no tensors are sent between them.

Each writes the rows of its own batches to files in the run directory, and reports through torchrun's store, in JSON,
that they are there, or why not. Shares are whole batches, so the bits are those of one process.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.config.places import Place
from pipeline.errors import TrainingError, UserError
from workers.evaluating.feature_cache import Written
from workers.topology.torchrun import RunGroup

TIMEOUT = 1800.0
"""Seconds that one process waits for another, whose share of the work is as large."""
T = TypeVar("T")
_PLACES = TypeAdapter(tuple[Place, ...])
_FILES = TypeAdapter(dict[str, Written])
_PROBLEMS = TypeAdapter(dict[int, str])


@dataclass
class Ranks:
    """This process among those that share the work; rank 0 leads and alone measures.

    Args:
        group: that torchrun started.
        timeout: seconds that one waits for another.
    """

    group: RunGroup
    timeout: float = TIMEOUT
    _number: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.group.rank == 0

    def share(self, batches: Sequence[T], rank: int | None = None) -> Sequence[T]:
        """The batches of one rank, this one if not given: consecutive ones, and about as many for each."""
        rank, size = self.group.rank if rank is None else rank, self.group.world_size
        return batches[len(batches) * rank // size : len(batches) * (rank + 1) // size]

    def agree(self, places: Iterable[Place] | None, among: Collection[Place] = ()) -> tuple[Place, ...]:
        """Rank 0 publishes which features are to be made, and the others read it.

        Args:
            places: of rank 0; the others give None.
            among: the only places that the others accept: they write files of these names, and anybody who reaches
                the store can write to it.

        Raises:
            TrainingError: rank 0 does not answer, or asks for something else.
        """
        self._number += 1
        if self.leads:
            chosen = tuple(places or ())
            self.group.publish(f"features/{self._number}", {"places": [asdict(place) for place in chosen]})
            return chosen
        message = self.group.look_up(f"features/{self._number}", self.timeout)
        try:
            chosen = _PLACES.validate_json(json.dumps(message.get("places")))
        except ValidationError:
            raise TrainingError("process 0 did not say which features are to be made") from None
        if not set(chosen) <= set(among):
            raise TrainingError("process 0 asks for features that this evaluation does not measure")
        return chosen

    def done(self, files: dict[Place, Written]) -> None:
        """Publish that this rank has written its rows."""
        named = {place.key: asdict(written) for place, written in files.items()}
        self.group.publish(f"features/{self._number}/{self.group.rank}", {"files": named})

    def failed(self, error: Exception) -> None:
        """Publish that this rank cannot go on; rank 0 raises the error."""
        self.group.publish(f"features/{self._number}/{self.group.rank}", {"error": str(error)})

    def join(self, problems: Mapping[int, str]) -> dict[int, str]:
        """The problems that all ranks have found in their shares, by the number of the image.

        Raises:
            TrainingError: another process does not answer, or not in the format.
        """
        self._number += 1
        self.group.publish(
            f"unreadable/{self._number}/{self.group.rank}", {"problems": {str(k): v for k, v in problems.items()}}
        )
        joined: dict[int, str] = {}
        for rank in range(self.group.world_size):
            try:
                message = self.group.look_up(f"unreadable/{self._number}/{rank}", self.timeout)
                joined |= _PROBLEMS.validate_json(json.dumps(message.get("problems")))
            except (TrainingError, ValidationError):
                problem = f"process {rank} had not said within {self.timeout:g} s which images it cannot decode"
                raise TrainingError(problem) from None
        return joined

    def files_of(self, rank: int, places: Iterable[Place]) -> dict[Place, Written]:
        """What another rank has written.

        Raises:
            UserError: it could not write them.
            TrainingError: it does not answer, or not in the format.
        """
        try:
            message: dict[str, Any] = self.group.look_up(f"features/{self._number}/{rank}", self.timeout)
        except TrainingError:
            problem = f"process {rank} had not written its features {self.timeout:g} s after process 0"
            raise TrainingError(problem) from None
        if "error" in message:
            raise UserError(f"process {rank}: {message['error']}")
        try:
            named = _FILES.validate_json(json.dumps(message.get("files")))
            return {place: named[place.key] for place in places}
        except (ValidationError, KeyError):
            raise TrainingError(f"process {rank} did not say which features it has written") from None
