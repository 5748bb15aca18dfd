"""Corpora: running text to train on, from files, folders and the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from erulab import hub
from erulab.data.dataset_cache import Notes
from erulab.data.reading import find_split, find_table, read_texts
from erulab.data.rows import Row
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.data.text_files import read_text_lines
from erulab.errors import ConfigError, DataError

VERSION = 1  # of how files become rows: a change makes every key new
# Shorter texts are left out, as in RMU's code (wikitext is a third headings and empty lines).
SHORTEST = 50
HUB_PARTS = 2  # owner/name; what follows is a configuration of that repository, and a split of it


@dataclass(frozen=True)
class Corpora:
    """The corpora that the config key `key` names, one after another.

    Each is a file (.jsonl, .json, .parquet or .csv with a field "text"; .txt with one text per line), or a folder or
    hub id, followed where needed by a configuration and a split: `cais/wmdp-corpora/bio-retain-corpus`,
    `Salesforce/wikitext/wikitext-2-raw-v1/test`. Without a split it is train.
    """

    key: str
    names: Sequence[str]

    def check(self) -> None:
        """Checks that each name can be a corpus. Asks no network.

        Raises:
            DataError: a name is neither a file, nor a folder with train files, nor a hub id.
        """
        for name in self.names:
            if not Path(name).is_file() and self._local(name) is None and not self._hub_id(name):
                raise DataError(
                    f"{self.key}: {name} is no file, no folder with train files and no hub id; type "
                    f"'{self.key}=[FILE]' or '{self.key}=[OWNER/NAME/CONFIGURATION]'"
                )

    def rows(self, cache: Path, most: int | None) -> tuple[Sequence[Row], tuple[str, ...]]:
        """Reads the texts, each as a row of running text without a prompt.

        Args:
            most: number of texts to keep, from the first; None: all.
        Returns:
            The rows, none without corpora; and notes on texts that were left out.
        Raises:
            ConfigError: `most` is larger than the number of texts.
            DataError: a file cannot be read, or no text is long enough.
            EnvironmentFault: the hub cannot be reached.
        """
        if not self.names:
            return (), ()
        part = self.key.rsplit(".", 1)[-1]
        tables = [_store_corpus(f"{part}/{number}", self._files(name), cache) for number, name in enumerate(self.names)]
        rows = StoredRows.concatenate(tables)
        short = sum(table.notes["short"] for table in tables)
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
        owner, config, split = _split_hub_name(name)
        folder = hub.fetch_snapshot(owner, "dataset", (f"{config}/{split}*",))
        files = find_split(folder, config, split)
        if not files:
            raise DataError(f"{self.key}: hub dataset {owner} has no {config}/{split}*; its page lists what it has")
        return files

    def _local(self, name: str) -> tuple[Path, ...] | None:
        """Finds the files of a folder of this name, or of a split in one."""
        path = Path(name)
        if path.is_dir():
            return find_split(path.parent, path.name, "train") or None
        table = find_table(path.parent, path.name)
        return find_split(path.parent.parent, path.parent.name, path.name) or (None if table is None else (table,))

    def _hub_id(self, name: str) -> bool:
        parts = name.split("/")
        return HUB_PARTS <= len(parts) <= HUB_PARTS + 2 and hub.is_hub_id("/".join(parts[:HUB_PARTS]))


def _split_hub_name(name: str) -> tuple[str, str, str]:
    """Splits a hub name into repository, configuration and split."""
    parts = name.split("/")
    config, split = [*parts[HUB_PARTS:], *("data", "train")[len(parts) - HUB_PARTS :]]
    return "/".join(parts[:HUB_PARTS]), config, split


def _store_corpus(prefix: str, files: Sequence[Path], cache: Path) -> StoredRows:
    """Stores the texts of one corpus as rows; its notes count the texts that were too short."""

    def read_rows(notes: Notes) -> Iterator[Row]:
        notes["short"] = 0
        # Empty lines of a corpus are no error: they count as short texts.
        for number, text in enumerate(text for file in files for text in _corpus_texts(file)):
            if len(text) < SHORTEST:
                notes["short"] += 1
            else:
                yield Row(f"{prefix}/{number}", "", text, fact=f"{prefix}/{number}", plain=True)

    # The format counts too: a file that holds one text per line as .txt may also be valid JSON.
    content = [(file.suffix == ".txt", hash_file(file)) for file in files]
    return store_rows(cache, {"corpus": VERSION, "prefix": prefix, "files": content}, read_rows)


def _corpus_texts(file: Path) -> Iterator[str]:
    """Returns the texts of one file; a .txt holds one per line."""
    return iter(read_text_lines(file)) if file.suffix == ".txt" else read_texts(file)
