"""The protocol of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from erulab.data.rows import Benchmark


class Dataset(Protocol):
    """A data set: reads or generates a benchmark."""

    def validate(self) -> None:
        """Checks at composition time what needs no rows to be read, without torch.

        Raises:
            ConfigError, DataError: one line each.
        """
        ...

    def identity(self, cache: Path) -> dict[str, Any]:
        """Identifies the benchmark by its content, never by a path: part of stage keys.

        Args:
            cache: the run's cache folder, where rows of files are kept.
        """
        ...

    def load(self, seed: int, cache: Path) -> Benchmark:
        """Returns the rows.

        Args:
            seed: draws what a run's seed may change; a data set with a seed of its own ignores it.
            cache: the run's cache folder.
        Raises:
            DataError: with file and line where there is one. EnvironmentFault: the cache cannot be written.
        """
        ...
