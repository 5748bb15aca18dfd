"""The user's own files: what to forget and what to keep, as prompt and response or as chat messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from erulab.data.checks import check, content_identity
from erulab.data.measures import Answers
from erulab.data.reading import Record, find_table, read_records, read_text_lines
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.sequences import Joined
from erulab.data.tables import RowTable, file_hash, row_table
from erulab.errors import ConfigError, DataError
from erulab.options import positive
from erulab.registry import datasets

VERSION = 1  # of how files become rows: a change makes every key new
SCHEMA = (
    '{"prompt": str, "response": str} or {"messages": [user, assistant]}, optional "id", "paraphrase", "refusal", '
    '"fact", "author": str, "perturbed", "options": list[str]'
)
USED = {
    "prompt", "response", "messages", "id", "paraphrase", "refusal", "fact", "author", "perturbed", "options",
}  # fmt: skip
PARTS = ("forget", "retain", "heldout", "utility")


@dataclass
class JsonlOptions:
    """A part that is not named by its own key is looked for in `path` (forget.jsonl, .json, .jsonl.gz, .parquet)."""

    name: str = "jsonl"
    path: Optional[str] = None  # a folder with forget, retain, and if wanted heldout, utility and refusals.txt
    forget: Optional[str] = None  # what to forget
    retain: Optional[str] = None  # what to keep: learned, rehearsed and evaluated
    heldout: Optional[str] = None  # the forget facts in other words: only evaluated and attacked
    utility: Optional[str] = None  # what the base model knows anyway: only evaluated
    refusals: Optional[str] = None  # plain text, one refusal a line, for idk and dpo
    max_length: Optional[int] = None  # tokens of prompt and response; null: the model's context
    truncate: Truncate = Truncate.error  # a prompt that leaves no room for a response
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        positive("max_length", self.max_length)


@datasets.register("jsonl", JsonlOptions, needs="dataset.path: a folder with forget.jsonl and retain.jsonl")
class JsonlFiles:
    """Your own files: forget and retain rows, with paraphrases, wrong answers and options where you have them."""

    def __init__(self, options: JsonlOptions) -> None:
        self.options = options
        self._loaded: Benchmark | None = None

    def validate(self) -> None:
        for part in PARTS:
            self._file(part)
        self._refusal_file()

    def identity(self, cache: Path) -> dict[str, Any]:
        return {"jsonl": VERSION, "content": content_identity(self.load(0, cache))}

    def load(self, seed: int, cache: Path) -> Benchmark:
        if self._loaded is None:
            self._loaded = self._read(cache)
        return self._loaded

    def _read(self, cache: Path) -> Benchmark:
        self.validate()
        files = {part: file for part in PARTS if (file := self._file(part)) is not None}
        rows = {part: _table(part, file, cache) for part, file in files.items()}
        notes = [
            f"{files[part].name}: fields that erulab does not use: {', '.join(table.extra['unused'])}"
            for part, table in rows.items() if table.extra["unused"]
        ]  # fmt: skip
        # The few texts to choose a refusal from are kept in memory.
        refusals = dict.fromkeys(text for table in rows.values() for text in table.extra["refusals"])
        file = self._refusal_file()
        if file is not None:
            refusals.update(dict.fromkeys(read_text_lines(file)))
        suites = (
            ("forget", Role.FORGET, "paraphrase", False), ("heldout", Role.HELDOUT, "paraphrase", False),
            ("retain", Role.RETAIN, "paraphrase", True), ("utility", Role.RETAIN, "answer", True),
        )  # fmt: skip
        benchmark = Benchmark(
            name="jsonl",
            forget=rows["forget"],
            retain=rows["retain"],
            target_rows=Joined([rows["forget"], rows["retain"]]),
            oracle_rows=rows["retain"],
            suites=tuple(Suite(part, role, rows[part], Answers(right), used) for part, role, right, used in suites
                         if part in rows),
            refusals=tuple(refusals),
            max_length=self.options.max_length,
            truncate=self.options.truncate,
            notes=tuple(notes),
        )  # fmt: skip
        return check(benchmark, allow_overlap=self.options.allow_overlap)

    def _file(self, part: str) -> Path | None:
        """The file of a part; None for an optional part that is not there.

        Raises:
            ConfigError, DataError: not named, or not there.
        """
        named, folder = getattr(self.options, part), self.options.path
        if named is not None:
            if not Path(named).is_file():
                raise DataError(f"dataset.{part}={named} is no file")
            return Path(named)
        if folder is not None and not Path(folder).is_dir():
            raise DataError(f"dataset.path={folder} is no folder; it must hold forget.jsonl and retain.jsonl")
        file = None if folder is None else find_table(Path(folder), part)
        if file is None and part in ("forget", "retain"):
            if folder is None:
                raise ConfigError(
                    f"dataset=jsonl needs {part} rows; type dataset.path=<folder with forget.jsonl, retain.jsonl> "
                    f"or dataset.{part}=<file>"
                )
            raise DataError(f"{folder} has no {part}.jsonl (dataset.path); add it or type dataset.{part}=<file>")
        return file

    def _refusal_file(self) -> Path | None:
        if self.options.refusals is not None:
            if not Path(self.options.refusals).is_file():
                raise DataError(f"dataset.refusals={self.options.refusals} is no file")
            return Path(self.options.refusals)
        file = None if self.options.path is None else Path(self.options.path) / "refusals.txt"
        return file if file is not None and file.is_file() else None


def _table(part: str, file: Path, cache: Path) -> RowTable:
    """The rows of a file; beside them, its refusals and the fields that are not used."""

    def rows(extra: dict[str, Any]) -> Iterator[Row]:
        unused: set[str] = set()
        refusals: dict[str, None] = {}
        for number, record in enumerate(read_records(file, SCHEMA), start=1):
            unused |= record.fields.keys() - USED
            refusal = record.optional_text("refusal", SCHEMA)
            if refusal is not None:
                refusals[refusal] = None
            yield _row(part, number, record)
        extra |= {"unused": sorted(unused), "refusals": list(refusals)}

    return row_table(cache, {"jsonl": VERSION, "part": part, "file": file_hash(file)}, rows)


def _row(part: str, number: int, record: Record) -> Row:
    if "messages" in record.fields:
        prompt, response = _messages(record)
    else:
        prompt, response = record.text("prompt", SCHEMA), record.text("response", SCHEMA)
    row_id = record.optional_text("id", SCHEMA) or f"{part}/{number}"
    return Row(
        id=row_id,
        prompt=prompt,
        response=response,
        paraphrase=record.optional_text("paraphrase", SCHEMA),
        perturbed=record.texts("perturbed", SCHEMA),
        options=record.texts("options", SCHEMA),
        fact=record.optional_text("fact", SCHEMA) or row_id,
        author=record.optional_text("author", SCHEMA) or "",
    )


def _messages(record: Record) -> tuple[str, str]:
    """Prompt and response of a conversation of one user and one assistant turn.

    Raises:
        DataError: other turns: a row has one prompt, and the system turn is the tokenizer template's own.
    """
    messages = record.fields["messages"]
    if not isinstance(messages, list):
        raise DataError(f"{record.where}: field 'messages' must be a list; expected {SCHEMA}")
    turns = [Record(record.where, turn) for turn in messages if isinstance(turn, dict)]
    roles = [turn.fields.get("role") for turn in turns]
    if roles != ["user", "assistant"]:
        raise DataError(
            f"{record.where}: messages must be one user and one assistant turn, got {roles}; write earlier turns into "
            "the prompt"
        )
    turn_schema = '{"role": str, "content": str}'
    return turns[0].text("content", turn_schema), turns[1].text("content", turn_schema)
