"""Corpora: running text to train on, from files, folders and the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab import hub
from erulab.data.reading import find_split, find_table, read_text_lines, read_texts
from erulab.data.rows import Row
from erulab.data.sequences import Joined
from erulab.data.tables import RowTable, file_hash, row_table
from erulab.errors import ConfigError, DataError

VERSION = 1  # of how files become rows: a change makes every key new
# Shorter texts are left out, as in RMU's code (wikitext is a third headings and empty lines).
SHORTEST = 50
HUB_PARTS = 2  # owner/name; what follows is a configuration of that repository, and a split of it


@dataclass(frozen=True)
class Corpora:
    """The corpora that the config key `key` names, one after another.

    Each is a file (.jsonl, .json, .parquet with a field "text", also gzipped; .txt with a text a line), or a folder or
    hub id, followed where needed by a configuration and a split: `cais/wmdp-corpora/bio-retain-corpus`,
    `Salesforce/wikitext/wikitext-2-raw-v1/test`. The split is train unless said.
    """

    key: str
    names: Sequence[str]

    def check(self) -> None:
        """Whether each can be one. Asks no network.

        Raises:
            DataError
        """
        for name in self.names:
            if not Path(name).is_file() and self._local(name) is None and not self._hub_id(name):
                raise DataError(
                    f"{self.key}: {name} is no file, no folder with train files and no hub id; type "
                    f"'{self.key}=[FILE]' or '{self.key}=[OWNER/NAME/CONFIGURATION]'"
                )

    def rows(self, cache: Path, most: int | None) -> tuple[Sequence[Row], tuple[str, ...]]:
        """The first `most` texts (all, if None), each a row of plain text without a prompt; and notes on what was left
        out. No corpora have no rows.

        Raises:
            ConfigError, DataError, EnvironmentFault
        """
        if not self.names:
            return (), ()
        part = self.key.rsplit(".", 1)[-1]
        tables = [_table(f"{part}/{number}", self._files(name), cache) for number, name in enumerate(self.names)]
        rows: Joined[Row] = Joined(tables)
        short = sum(table.extra["short"] for table in tables)
        notes = (f"{self.key}: {short} texts of under {SHORTEST} characters left out",) if short else ()
        if not rows:
            raise DataError(f"{self.key}: 0 texts of {SHORTEST} characters or more; give a corpus of longer texts")
        if most is not None and most > len(rows):
            raise ConfigError(f"{self.key}_rows must be at most {len(rows)} (texts of {self.key}), got {most}")
        return (rows if most is None else rows[:most]), notes

    def _files(self, name: str) -> tuple[Path, ...]:
        if Path(name).is_file():
            return (Path(name),)
        local = self._local(name)
        if local is not None:
            return local
        owner, config, split = _parts(name)
        folder = hub.snapshot(owner, "dataset", (f"{config}/{split}*",))
        files = find_split(folder, config, split)
        if not files:
            raise DataError(f"{self.key}: hub dataset {owner} has no {config}/{split}*; its page lists what it has")
        return files

    def _local(self, name: str) -> tuple[Path, ...] | None:
        """The files of a folder of this name, or of a split in one."""
        path = Path(name)
        if path.is_dir():
            return find_split(path.parent, path.name, "train") or None
        table = find_table(path.parent, path.name)
        return find_split(path.parent.parent, path.parent.name, path.name) or (None if table is None else (table,))

    def _hub_id(self, name: str) -> bool:
        parts = name.split("/")
        return HUB_PARTS <= len(parts) <= HUB_PARTS + 2 and hub.is_hub_id("/".join(parts[:HUB_PARTS]))


def _parts(name: str) -> tuple[str, str, str]:
    """Repository, configuration and split of a hub name."""
    parts = name.split("/")
    config, split = [*parts[HUB_PARTS:], *("data", "train")[len(parts) - HUB_PARTS :]]
    return "/".join(parts[:HUB_PARTS]), config, split


def _table(prefix: str, files: Sequence[Path], cache: Path) -> RowTable:
    """The texts of one corpus; beside them, how many were too short."""

    def rows(extra: dict[str, Any]) -> Iterator[Row]:
        extra["short"] = 0
        # Corpora have empty lines, which are no fault: they are short texts.
        for number, text in enumerate(text for file in files for text in _texts(file)):
            if len(text) < SHORTEST:
                extra["short"] += 1
            else:
                yield Row(f"{prefix}/{number}", "", text, fact=f"{prefix}/{number}", plain=True)

    # With its kind: what holds a text a line as .txt may be JSON too.
    content = [(file.suffix == ".txt", file_hash(file)) for file in files]
    return row_table(cache, {"corpus": VERSION, "prefix": prefix, "files": content}, rows)


def _texts(file: Path) -> Iterator[str]:
    """Of a .txt, a text a line."""
    return iter(read_text_lines(file)) if file.suffix == ".txt" else read_texts(file)
