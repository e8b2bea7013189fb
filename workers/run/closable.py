"""Objects that hold resources: a context manager at whose end `close` is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closable(ABC):
    """Releases its resources in `close`, which the end of a `with` block calls."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources; may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
