"""The place of a data set's files: a folder laid out like the hub's repository, or a hub id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from erulab import hub
from erulab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """`path` as the user gave it under the config key `key`; `example` is what could be typed there."""

    path: str | None
    key: str
    example: str

    def local(self) -> Path | None:
        """Returns the folder; None for a hub id. Asks no network.

        Raises:
            ConfigError, DataError: the path is neither.
        """
        if self.path is None:
            raise ConfigError(f"{self.key} must be a folder or hub id, got null; type {self.key}={self.example}")
        if Path(self.path).is_dir():
            return Path(self.path)
        if not hub.is_hub_id(self.path):
            raise DataError(f"{self.key}={self.path} is no folder and no hub id; type {self.key}={self.example}")
        return None

    def folder(self, parts: Iterable[str], skip: Iterable[str] = ()) -> Path:
        """Returns the folder, fetched from the hub where it is not here.

        Args:
            parts: patterns of the repository's files that are needed.
            skip: patterns of files among them that are not.
        Raises:
            ConfigError, DataError: the path is neither a folder nor a hub id.
            EnvironmentFault: the hub cannot be reached, or does not give the files.
        """
        return self.local() or hub.fetch_snapshot(str(self.path), "dataset", parts, skip)
