"""MUSE (Shi et al. 2024): news articles or books to be forgotten as running text, at once or in several requests.

What differs from muse_bench: its npo compares raw logits of whole vocabularies, erulab's the log-probability of the
text, as open-unlearning's does, so npo figures compare with open-unlearning's only. open-unlearning stems words
before ROUGE, muse_bench and erulab do not. A text longer than `dataset.max_length` is learned in as many consecutive
rows as it takes; muse_bench cuts such a text off (JSON files) or cuts all texts together into blocks (.txt). Texts
that are judged stay whole. Rows of text have no prompt: rfa reads its directions at their last token, latent_pgd and
noise perturb all tokens except the first, where they can write the text itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.data.checks import check_benchmark
from erulab.data.dataset_cache import Notes
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Generated, Overlap, Separation, Texts
from erulab.data.reading import find_table, read_records, read_texts
from erulab.data.rows import Benchmark, Request, Role, Row, Suite, Truncate
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file, row_column, store_rows
from erulab.errors import DataError
from erulab.options import require, require_positive
from erulab.registry import benchmarks, datasets

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

VERSION = 1  # of how files become rows: a change makes every key new
QA = '{"question": str, "answer": str}'
PASSAGE = '{"prompt": str, "gt": str}'
STOPS = ("\n\n", "\nQuestion", "Question:")  # texts that end an answer of KnowMem
VERBMEM = Generated(Overlap.rouge_f1, 128, reference_tokens=128)
KNOWMEM = Generated(Overlap.rouge_f1, 32, STOPS)
SCORED = 100  # texts of a forget set or fold that are scored: as many as each of MUSE's own sets has
# AUC of the official retrained models, forget against holdout, Min-40 % (muse_bench, constants.py); of no other models.
PUBLISHED_AUC = {"news": 0.4772, "books": 0.5393}
FOLDS = "sust/forget_"


class Corpus(Enum):
    news = "news"
    books = "books"

    @property
    def hub_id(self) -> str:
        return f"muse-bench/MUSE-{self.value.capitalize()}"


class Mode(Enum):
    """The forget rows of a later request, and the model that it starts from."""

    sustainability = "sustainability"  # its own fold, unlearned from the model of the request before
    scalability = "scalability"  # its fold and all before it, unlearned from the target


@dataclass
class MuseOptions:
    name: str = "muse"
    path: Optional[str] = None  # a folder in the hub's layout, or a hub id; null: the corpus on the hub
    corpus: Corpus = Corpus.news  # news articles or books
    requests: Optional[list[int]] = None  # folds of sust, unlearned one after another; null: raw/forget at once
    mode: Mode = Mode.sustainability  # what each of several requests asks for
    published_retrained: bool = False  # PrivLeak against the official retrained model's AUC, not this run's oracle's
    max_length: Optional[int] = 2048  # tokens of a row; longer texts are learned in several rows
    truncate: Truncate = Truncate.error  # what to do with a prompt that leaves no room for a response
    allow_overlap: bool = True  # accept texts that are in two sets, with a note: MUSE publishes some articles twice

    def __post_init__(self) -> None:
        folds = self.requests is None or (
            bool(self.requests) and min(self.requests) >= 1 and len(set(self.requests)) == len(self.requests)
        )
        require(folds, "requests", "a list of different folds from 1 on, such as [1,2,3]", self.requests)
        require_positive("max_length", self.max_length)


@datasets.register("muse", MuseOptions, paper="arXiv:2407.06460", needs="MUSE's files: a folder, or the hub")
class Muse(FilesDataset):
    """MUSE: forget news articles or books as text, at once or in turn; verbatim memory, knowledge, PrivLeak."""

    version = {"muse": VERSION}
    key = "dataset"  # config key of the options, for messages

    def __init__(self, options: MuseOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(_corpus_path(options), f"{self.key}.path", options.corpus.hub_id)

    def validate(self) -> None:
        folder = self._source.local()
        if folder is not None:
            self._check_files(folder)

    def _check_files(self, folder: Path) -> None:
        """Checks that the folder holds what the options ask for.

        Raises:
            DataError: a fold of `requests` is not there, or nothing of MUSE is.
        """
        there = _find_folds(folder)
        for fold in self.options.requests or ():
            if fold not in there:
                known = ", ".join(map(str, there)) or "none"
                raise DataError(
                    f"{folder} has no {FOLDS}{fold} ({self.key}.requests={self.options.requests}); folds that are "
                    f"there: {known}"
                )
        parts = ("raw/forget", "verbmem/forget", "knowmem/forget_qa", "knowmem/retain_qa", "privleak/forget")
        if not there and all(_find_part(folder, part) is None for part in parts):
            raise DataError(f"{folder} has none of MUSE's files ({', '.join(parts)}; {self.key}.path)")

    def _read(self, cache: Path) -> Benchmark:
        o = self.options
        folder = self._source.folder(("*.parquet",))
        self._check_files(folder)
        files = _MuseFiles(folder, cache)
        folds = (
            {fold: files.texts(f"{FOLDS}{fold}", f"forget_{fold}") for fold in _find_folds(folder)}
            if o.requests
            else {}
        )
        asked = [folds[fold] for fold in o.requests or ()]
        forget = _concatenate_present(asked) if asked else files.texts("raw/forget", "forget")
        # The target learns all folds, whichever of them are asked for.
        learned = list(folds.values()) or [forget]
        rehearsed = files.texts("raw/retain1", "retain1")
        kept = (rehearsed, files.texts("raw/retain2", "retain2"))
        asked_suites = [(f"forget_{fold}", folds[fold]) for fold in o.requests or ()] or [("forget", forget)]
        suites = (
            *(Suite(name, Role.FORGET, rows[:SCORED], Texts()) for name, rows in asked_suites),
            Suite("verbmem", Role.FORGET, files.passages(), VERBMEM),
            Suite("knowmem_f", Role.FORGET, files.questions("forget_qa", "knowmem_f"), KNOWMEM),
            Suite("knowmem_r", Role.RETAIN, files.questions("retain_qa", "knowmem_r"), KNOWMEM),
            *(
                Suite(f"privleak_{part}", role, files.texts(f"privleak/{part}", f"privleak_{part}"), Texts())
                for part, role in (("forget", Role.FORGET), ("holdout", Role.UNSEEN), ("retain", Role.RETAIN))
            ),
        )
        published = PUBLISHED_AUC[o.corpus.value] if o.published_retrained else None
        benchmark = Benchmark(
            name="muse",
            suites=tuple(suite for suite in suites if suite.rows),
            summaries=(Separation("mia", "privleak_forget", "privleak_holdout", published),),
            forget=forget,
            retain=rehearsed,
            target_rows=_concatenate_present([*learned, *kept]),
            oracle_rows=_concatenate_present(kept),
            max_length=o.max_length,
            truncate=o.truncate,
            requests=_list_requests(o, asked),
            absent=tuple(files.absent),
            notes=(*files.notes, *_shared_text_notes(dict(asked_suites))),
        )
        return check_benchmark(benchmark, key=self.key, allow_overlap=o.allow_overlap, needed=())


@benchmarks.register("muse", MuseOptions, paper="arXiv:2407.06460", needs="MUSE's files: a folder, or the hub")
class MuseBenchmark(Muse):
    """MUSE, measured in addition to the data set that is unlearned."""

    key = "benchmark.muse"


class _MuseFiles:
    """Reads the parts of one corpus as rows; a missing part has no rows, and is noted."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self.absent: list[str] = []
        self._blank: dict[str, int] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        parts = ", ".join(self.absent)
        lacking = (f"missing files, whose parts are neither learned nor measured: {parts}",) if parts else ()
        return (*lacking, *(f"{part}: blank texts left out: {count}" for part, count in self._blank.items()))

    def texts(self, part: str, name: str) -> Sequence[Row]:
        """Reads texts that are learned, or judged, as they are.

        Args:
            part: the part's files, such as raw/forget.
            name: first half of the rows' ids.
        """

        def read_rows(notes: Notes, file: Path) -> Iterator[Row]:
            notes["blank"] = 0
            for i, text in enumerate(read_texts(file)):
                if text:
                    yield Row(f"{name}/{i}", "", text, fact=f"{name}/{i}", plain=True)
                else:  # the published news have some
                    notes["blank"] += 1

        rows = self._read_part([part], name, read_rows)
        if isinstance(rows, StoredRows) and rows.notes["blank"]:
            self._blank[part] = rows.notes["blank"]
        return rows

    def passages(self) -> Sequence[Row]:
        """Reads openings of forget texts, each with its continuation as the response."""
        return self._read_part(
            ["verbmem/forget"],
            "verbmem",
            lambda notes, file: (
                Row(
                    f"verbmem/{i}",
                    record.text("prompt", PASSAGE),
                    record.text("gt", PASSAGE),
                    fact=f"verbmem/{i}",
                    plain=True,
                )
                for i, record in enumerate(read_records(file, PASSAGE))
            ),
        )

    def questions(self, part: str, name: str) -> Sequence[Row]:
        """Reads questions, each after all of the part's examples with their answers."""

        def read_rows(notes: Notes, file: Path, examples: Path) -> Iterator[Row]:
            opening = "".join(f"{asked}{answer}\n\n" for asked, answer in _read_qa_pairs(examples))
            for i, (asked, answer) in enumerate(_read_qa_pairs(file)):
                yield Row(f"{name}/{i}", opening + asked, answer, fact=f"{name}/{i}", plain=True)

        return self._read_part([f"knowmem/{part}", f"knowmem/{part}_icl"], name, read_rows)

    def _read_part(self, parts: Sequence[str], name: str, make: Callable[..., Iterable[Row]]) -> Sequence[Row]:
        """Reads the rows of a part from the files it needs; none where a file is missing.

        Args:
            make: (notes, *files) -> rows.
        """
        files = {part: _find_part(self._folder, part) for part in parts}
        missing = [part for part, file in files.items() if file is None]
        self.absent += missing
        if missing:
            return ()
        found = [file for file in files.values() if file is not None]
        # The format counts too: a file that is one text as .txt may also be valid JSON.
        content = [(file.suffix == ".txt", hash_file(file)) for file in found]
        depends_on = {"muse": VERSION, "rows": name, "files": content}
        return store_rows(self._cache, depends_on, lambda notes: make(notes, *found))


def _list_requests(options: MuseOptions, folds: Sequence[Sequence[Row]]) -> tuple[Request, ...]:
    names = [str(fold) for fold in options.requests or ()]
    if options.mode is Mode.sustainability:
        return tuple(Request(name, rows) for name, rows in zip(names, folds, strict=True))
    return tuple(Request(name, _concatenate_present(folds[: i + 1]), continues=False) for i, name in enumerate(names))


def _concatenate_present(parts: Sequence[Sequence[Row]]) -> Sequence[Row]:
    """Concatenates the parts that are there."""
    there = [part for part in parts if isinstance(part, StoredRows)]
    return StoredRows.concatenate(there) if there else ()


def _read_qa_pairs(file: Path) -> Iterator[tuple[str, str]]:
    """Yields each question as it is asked, and its answer."""
    for record in read_records(file, QA):
        yield f"Question: {record.text('question', QA)}\nAnswer: ", record.text("answer", QA)


def _shared_text_notes(folds: dict[str, Sequence[Row]]) -> Iterator[str]:
    """Notes how many texts two folds share: published folds do, although they are said to be disjoint."""
    contents = {name: np.unique(row_column(rows, "content_hash")) for name, rows in folds.items()}
    for first, second in itertools.combinations(contents, 2):
        count = len(np.intersect1d(contents[first], contents[second]))
        if count:
            yield f"{first} and {second} share {count} texts"


def _corpus_path(options: MuseOptions) -> str:
    """Returns the folder of one corpus, or a hub id."""
    if options.path is None:
        return options.corpus.hub_id
    within = Path(options.path) / options.corpus.value
    return str(within) if within.is_dir() else options.path


def _find_folds(folder: Path) -> list[int]:
    """Lists the folds that are there, in order."""
    found = itertools.takewhile(lambda fold: _find_part(folder, f"{FOLDS}{fold}") is not None, itertools.count(1))
    return list(found)


def _find_part(folder: Path, part: str) -> Path | None:
    """Finds the file of a part such as raw/forget, whatever its format."""
    config, split = part.split("/")
    text = folder / config / f"{split}.txt"
    return find_table(folder / config, split) or (text if text.is_file() else None)
