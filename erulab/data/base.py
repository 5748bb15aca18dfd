"""What a data set is to the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from erulab.data.rows import Benchmark


class Dataset(Protocol):
    """Reads or generates a benchmark."""

    def validate(self) -> None:
        """Cheap checks at composition time, without torch.

        Raises:
            ConfigError, DataError: one line each.
        """
        ...

    def identity(self, cache: Path) -> dict[str, Any]:
        """What the benchmark depends on, by content, never by path: part of stage keys.

        Args:
            cache: the run's cache folder, where rows of files are kept.
        """
        ...

    def load(self, seed: int, cache: Path) -> Benchmark:
        """The rows. `seed` draws what a run's seed may change; a data set with a seed of its own ignores it.

        Raises:
            DataError: with file and line where there is one. EnvironmentFault: the cache cannot be written.
        """
        ...
