"""Data sets that lie in files: read once per process, identified by their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from erulab.data.checks import content_identity
from erulab.data.rows import Benchmark


class FilesDataset(ABC):
    """A `Dataset` whose identity is its rows and `version`: the reader's name, and the version of how it reads."""

    version: ClassVar[Mapping[str, int]]

    def __init__(self) -> None:
        self._loaded: Benchmark | None = None

    def identity(self, cache: Path) -> dict[str, Any]:
        return {**self.version, "content": content_identity(self.load(0, cache))}

    def load(self, seed: int, cache: Path) -> Benchmark:
        if self._loaded is None:
            self._loaded = self._read(cache)
        return self._loaded

    @abstractmethod
    def _read(self, cache: Path) -> Benchmark:
        """Reads and checks the rows.

        Raises:
            DataError: with file and line where there is one.
        """
