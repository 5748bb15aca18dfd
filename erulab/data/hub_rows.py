"""Any data set of the Hugging Face hub, or a local folder in its format: parts by the library's own split syntax."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.data.from_files import FilesDataset
from erulab.data.own_parts import PARTS, VERSION, benchmark_of_parts, store_part
from erulab.data.reading import Record
from erulab.data.rows import Benchmark, Truncate
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file
from erulab.errors import ConfigError, DataError, EnvironmentFault
from erulab.faults import machine_fault
from erulab.options import require_positive
from erulab.registry import datasets

if TYPE_CHECKING:
    import datasets as huggingface
else:
    huggingface = lazy_loader.load("datasets")

EXAMPLE = "owner/name"
READ_ROWS = 512  # read together


@dataclass
class HubColumns:
    """The column that holds each field of a row. If none is named, every column is the field of its name."""

    prompt: Optional[str] = None  # a question or instruction
    response: Optional[str] = None  # its answer, which is learned and forgotten
    text: Optional[str] = None  # a text without a prompt
    messages: Optional[str] = None  # turns: a list of {"role", "content"}
    conversations: Optional[str] = None  # turns as ShareGPT has them: a list of {"from", "value"}
    instruction: Optional[str] = None  # Alpaca's instruction
    input: Optional[str] = None  # Alpaca's input, placed behind the instruction
    output: Optional[str] = None  # Alpaca's response
    options: Optional[str] = None  # all choices, or with a response the wrong ones
    answer: Optional[str] = None  # the right choice: its place from 0, or its text
    perturbed: Optional[str] = None  # list of wrong answers
    accepted: Optional[str] = None  # list of other right answers
    paraphrase: Optional[str] = None  # the right answer in other words
    refusal: Optional[str] = None  # what idk and dpo teach
    system: Optional[str] = None  # the system turn
    history: Optional[str] = None  # earlier turns: [[user, assistant], ...]
    span: Optional[str] = None  # the words of the response that carry the fact: text or list
    span_alternatives: Optional[str] = None  # list of other values of the span
    id: Optional[str] = None  # the row's name
    fact: Optional[str] = None  # the fact that several rows phrase
    author: Optional[str] = None  # whom the fact is about


@dataclass
class HubOptions:
    name: str = "hub"
    path: Optional[str] = None  # hub id (owner/name), or a folder of parquet, csv or jsonl files
    config: Optional[str] = None  # the repository's configuration; null: its only or default one
    revision: Optional[str] = None  # branch, tag or commit; null: main
    forget: Optional[str] = None  # what to forget: a split or slice, such as train[:10%]
    retain: Optional[str] = None  # what to keep: learned, rehearsed and evaluated
    heldout: Optional[str] = None  # the forget facts in other words: only evaluated and attacked
    utility: Optional[str] = None  # what the base model knows anyway: only evaluated
    holdout: Optional[str] = None  # like the forget rows, but never learned: for membership inference
    columns: HubColumns = field(default_factory=HubColumns)  # row field -> column
    max_length: Optional[int] = None  # tokens of prompt and response; null: the model's context
    truncate: Truncate = Truncate.error  # what to do with a prompt that leaves no room for a response
    allow_overlap: bool = False  # accept rows that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        require_positive("max_length", self.max_length)


@datasets.register(
    "hub", HubOptions, needs="dataset.path: a hub id; dataset.forget and dataset.retain: splits or slices"
)
class HubRows(FilesDataset):
    """Any data set of the Hugging Face hub, or a folder in its format: parts by split or slice, columns by name."""

    version = {"hub": VERSION}

    def __init__(self, options: HubOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, "dataset.path", EXAMPLE)

    def validate(self) -> None:
        self._source.local()
        for part, example in (("forget", "train[:10%]"), ("retain", "train[10%:]")):
            if getattr(self.options, part) is None:
                raise ConfigError(
                    f"dataset=hub needs {part} rows; type 'dataset.{part}=\"{example}\"' (a split or slice)"
                )

    def _read(self, cache: Path) -> Benchmark:
        self.validate()
        named = {part: getattr(self.options, part) for part in PARTS if getattr(self.options, part) is not None}
        return benchmark_of_parts(
            "hub",
            {part: self._store_part(part, split, cache) for part, split in named.items()},
            {part: f"{self.options.path} {split}" for part, split in named.items()},
            max_length=self.options.max_length,
            truncate=self.options.truncate,
            allow_overlap=self.options.allow_overlap,
        )

    def _store_part(self, part: str, split: str, cache: Path) -> StoredRows:
        found = self._load(part, split, cache)
        columns = {
            name: column for name, column in dataclasses.asdict(self.options.columns).items() if column is not None
        }
        for name, column in columns.items():
            if column not in found.column_names:
                raise DataError(
                    f"dataset.columns.{name}={column}: {self.options.path} has no such column; it has "
                    f"{', '.join(found.column_names)}"
                )
        if not columns and not {"prompt", "instruction", "messages", "conversations", "text"} & {*found.column_names}:
            raise DataError(
                f"{self.options.path} has the columns {', '.join(found.column_names)}, and none of them is a field of "
                "a row; name them, such as dataset.columns.prompt=question dataset.columns.response=answer"
            )
        depends_on = {
            "split": split,
            "columns": columns,
            "files": [hash_file(Path(file["filename"])) for file in found.cache_files],
        }
        where = f"{self.options.path} {split}"
        return store_part(cache, part, depends_on, _read_records(found, where, columns))

    def _load(self, part: str, split: str, cache: Path) -> huggingface.Dataset:
        """Loads a split or slice; what the library makes of the files lies in the cache folder.

        Raises:
            DataError: no such configuration, split or revision, or files it cannot read.
            EnvironmentFault: the hub cannot be reached.
        """
        huggingface.disable_progress_bars()
        path, o = str(self.options.path), self.options
        try:
            return huggingface.load_dataset(
                path, o.config, split=split, revision=o.revision, cache_dir=str(cache / "hub")
            )
        except ConnectionError as error:
            raise EnvironmentFault(
                f"{path} is no local folder, and the hub cannot be reached for a dataset of that name; check the "
                f"network, or give a local folder (on a machine with access: hf download {path} --repo-type dataset)"
            ) from error
        except Exception as error:  # the library raises what its builders raise, of any type
            fault = machine_fault(error, [cache])
            if fault is not None:
                raise fault from error
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise DataError(
                f"dataset.{part}={split} of {path} cannot be loaded ({lines[0]}); see dataset.config, "
                "dataset.revision and the splits of the data set"
            ) from error


def _read_records(found: huggingface.Dataset, where: str, columns: dict[str, str]) -> Iterator[Record]:
    """Yields each row as a record.

    Args:
        columns: row field -> column; empty: every column is the field of its name.
    """
    columns = columns or {name: name for name in found.column_names}
    number = 0
    for table in found.with_format("arrow").iter(READ_ROWS):  # as Arrow: images and audio are not decoded
        for values in table.to_pylist():
            number += 1
            yield Record(f"{where} row {number}", {name: values[column] for name, column in columns.items()})
    if not number:
        raise DataError(f"{where}: 0 rows")
