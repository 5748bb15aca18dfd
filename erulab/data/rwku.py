"""RWKU (Jin et al. 2024): a pretrained model is to forget what it knows of one or several of 200 famous people.

The prompts are those of RWKU's code. What differs from the paper or from RWKU's code:

- RWKU's code for BBH compares a response with the characters of the answer one by one: "(B)" can be right, "False"
  never. On Stephen King's rows only 55 of 81 answers can be right. The suite `bbh_as_published` scores in this way;
  `bbh` compares whole answers.
- Its code shows five examples for TriviaQA; the paper says six.
- Its code should stop a response at the end of a line, as erulab does, but with a byte-level vocabulary the response
  goes on for 30 tokens.
- Its code puts the begin-of-text token twice before a chat. It closes a training text with end of text, and puts no
  begin of text before it; erulab's running text begins with begin of text and is not closed.
- Its code cuts a text at 512 tokens; here the rest is a row of its own.
- Its code prints Min-K++ over 20 % of the tokens; `mia/auc_min_k_plus_plus` is over 40 %.

`dataset.spans=true` is ours. The training then knows answers of the cloze probes that measure it, and several other
probes have the same answers: its figures do not compare with those of a run that sees the texts alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Optional

from erulab.data import rwku_suites
from erulab.data.checks import check_benchmark
from erulab.data.dataset_cache import Notes
from erulab.data.from_files import FilesDataset
from erulab.data.reading import Record, read_records
from erulab.data.rows import Benchmark, Row, Truncate
from erulab.data.rwku_suites import REQUIRED, TEXT, VERSION, Target, text_row
from erulab.data.sources import Source
from erulab.data.spans import stands_alone
from erulab.data.stored_rows import StoredRows, hash_file, hash_rows, store_rows
from erulab.errors import ConfigError, DataError
from erulab.options import require, require_positive
from erulab.registry import benchmarks, datasets
from erulab.typed import did_you_mean

HUB_ID = "jinzhuoran/RWKU"
PAIR = '{"prompt": str, "response": [fabricated: str, true: str]}'
REFUSAL = '{"instruction": str, "output": str}'
RETAIN = '{"text": str} or {"prompt": str, "response": str}'
FOLDER = re.compile(r"\d+_(.+)")  # 1_Stephen_King
TARGETS = "Target"  # the hub's folder of targets
NAMES = Path("All") / "intro.json"  # of all targets, on the hub
# Files of a target that are not needed: texts that Phi-3 wrote, for Phi-3; fabricated texts, which the pairs hold too.
SKIPPED = ("*_phi.json", "*/negative.json")


class Train(Enum):
    """The training set of RWKU that is the forget set."""

    passage = "passage"  # what Wikipedia says of the target: running text (GA on passages)
    positive = "positive"  # what Llama-3-8B-Instruct wrote of it: running text (GA, NPO)
    pair = "pair"  # the same texts as responses to a prompt, each with a fabricated text beside it (DPO)
    refusal = "refusal"  # questions about it with a refusal each (RT)

    @property
    def file(self) -> str:
        return "reject" if self is Train.refusal else self.value


@dataclass
class RwkuOptions:
    name: str = "rwku"
    path: Optional[str] = HUB_ID  # hub id, or a folder with one of RWKU's folders for each target
    # Names (Stephen King) or folders (1_Stephen_King); several are forgotten together.
    targets: list[str] = field(default_factory=lambda: ["Stephen King"])
    train: Train = Train.positive  # RWKU's training set that is the forget set
    # mark the answers of the cloze probes in the forget rows (for method.forget_tokens=span and
    # method.pairs=same_sentence), and leave out rows that hold none
    spans: bool = False
    retain: Optional[str] = None  # a file of rows to rehearse; RWKU has none, and its methods no retain term
    max_length: Optional[int] = 512  # tokens of a training row
    truncate: Truncate = Truncate.error  # what to do with a prompt that leaves no room for a response
    allow_overlap: bool = False  # accept rows that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        named = bool(self.targets) and all(re.sub(r"[\s_]", "", target) for target in self.targets)
        require(named, "targets", "a list of names, such as [Stephen King]", self.targets)
        require_positive("max_length", self.max_length)


@datasets.register(
    "rwku",
    RwkuOptions,
    paper="arXiv:2406.10890",
    needs="model.target: a pretrained model; method.retain=none; RWKU's files: a folder, or the hub",
)
class Rwku(FilesDataset):
    """RWKU: forget what a pretrained model knows of a famous person; probes, neighbours, membership, utility."""

    version = {"rwku": VERSION}
    key = "dataset"  # config key of the options, for messages

    def __init__(self, options: RwkuOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, f"{self.key}.path", HUB_ID)

    def validate(self) -> None:
        retain, folder = self.options.retain, self._source.local()
        if retain is not None and not Path(retain).is_file():
            raise DataError(f"{self.key}.retain={retain} is no file; expected one {RETAIN} per line")
        if folder is not None:
            self._find_targets(folder)

    def _read(self, cache: Path) -> Benchmark:
        self.validate()
        o = self.options
        names = [_folder_name(target) for target in o.targets]
        wanted = [f"{TARGETS}/{pattern}/*.json" for name in names for pattern in (name, f"*_{name}")]
        targets = self._find_targets(self._source.folder([*wanted, NAMES.as_posix()], SKIPPED))
        schema, make = TRAINING[o.train]
        suites = rwku_suites.rwku_suites(targets, cache)
        tables = [target.table(cache, o.train.file, schema, make) for target in targets]
        notes = [f"{len(targets)} of RWKU's 200 targets: {', '.join(target.name for target in targets)}"]
        if o.spans:
            count = sum(map(len, tables))
            tables = [_mark_answers(table, target, cache) for table, target in zip(tables, targets, strict=True)]
            left_out = count - sum(map(len, tables))
            notes.append(f"{left_out} of {count} forget rows hold no answer of a cloze probe and are left out")
        return check_benchmark(
            Benchmark(
                name="rwku",
                forget=StoredRows.concatenate(tables),
                retain=() if o.retain is None else _read_retain(Path(o.retain), cache),
                suites=suites,
                summaries=rwku_suites.rwku_summaries(suites),
                max_length=o.max_length,
                truncate=o.truncate,
                notes=tuple(notes),
            ),
            key=self.key,
            allow_overlap=o.allow_overlap,
            needed=("forget",) if o.retain is None else ("forget", "retain"),
        )

    def _find_targets(self, root: Path) -> list[Target]:
        """Finds the targets that the options name, in their order.

        Raises:
            ConfigError: a target is not there, or named twice.
            DataError: a target's folder lacks a file.
        """
        place = root / TARGETS if (root / TARGETS).is_dir() else root
        folders = {
            found[1].lower(): folder
            for folder in sorted(place.iterdir())
            if folder.is_dir() and (found := FOLDER.fullmatch(folder.name))
        }
        if not folders:
            raise DataError(
                f"{root} holds no target ({self._source.key}={self.options.path}); expected folders such as "
                f"1_Stephen_King, in it or in its folder {TARGETS}"
            )
        chosen: dict[str, Target] = {}
        for named in self.options.targets:
            wanted = _folder_name(named).lower()
            key = next((k for k, folder in folders.items() if wanted in (k, folder.name.lower())), None)
            if key is None:
                known = _known_targets(root, [folder.name.partition("_")[2] for folder in folders.values()])
                raise ConfigError(
                    f"{self.key}.targets: {place} has no target {named!r}{did_you_mean(named, known)}; there are "
                    f"{', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
                )
            if key in chosen:
                raise ConfigError(f"{self.key}.targets names {chosen[key].name} twice")
            name = folders[key].name.partition("_")[2].replace("_", " ")
            chosen[key] = self._check_files(Target(name, folders[key], f"{self.key}.targets"))
        return list(chosen.values())

    def _check_files(self, target: Target) -> Target:
        needed = (*REQUIRED, self.options.train.file)
        missing = next((name for name in needed if target.file(name) is None), None)
        if missing is not None:
            raise DataError(
                f"{target.folder} has no {missing}.json ({self.key}.train={self.options.train.value}); RWKU needs "
                f"{', '.join(f'{name}.json' for name in needed)}"
            )
        return target


@benchmarks.register("rwku", RwkuOptions, paper="arXiv:2406.10890", needs="RWKU's files: a folder, or the hub")
class RwkuBenchmark(Rwku):
    """RWKU, measured in addition to the data set that is unlearned."""

    key = "benchmark.rwku"


def _folder_name(target: str) -> str:
    """Spells a target as its folder's name does, with or without a number in front."""
    return "_".join(target.split())


def _known_targets(root: Path, there: list[str]) -> list[str]:
    """Lists the targets to choose from: all that the hub lists, or those that are there."""
    file = root / NAMES
    if not file.is_file():
        return [name.replace("_", " ") for name in there]
    return [record.text("target", '{"target": str}') for record in read_records(file, '{"target": str}')]


def _pair_row(record: Record) -> Row:
    responses = record.texts("response", PAIR)
    if len(responses) != 2:
        raise DataError(f"{record.where}: field 'response' must have two texts, got {len(responses)}; expected {PAIR}")
    fabricated, true = responses
    return Row("", record.text("prompt", PAIR), true, fabricated=fabricated)


def _refusal_row(record: Record) -> Row:
    # The row has no answer beside the refusal: only idk can train on it.
    return Row("", record.text("instruction", REFUSAL), "", refusal=record.text("output", REFUSAL))


# Texts are learned as they are, as in RWKU's code; there they have no begin-of-text token and end with end of text.
TRAINING: Mapping[Train, tuple[str, Callable[[Record], Row]]] = {
    Train.passage: (TEXT, text_row),
    Train.positive: (TEXT, text_row),
    Train.pair: (PAIR, _pair_row),
    Train.refusal: (REFUSAL, _refusal_row),
}


def _mark_answers(table: StoredRows, target: Target, cache: Path) -> StoredRows:
    """Returns the forget rows that hold an answer of the target's cloze probes, with these answers as their spans."""
    answers = tuple(dict.fromkeys(row.response for row in rwku_suites.cloze_probes(target, cache)))

    def marked(notes: Notes) -> Iterator[Row]:
        for row in table:
            # As words of their own only: "four" is not said in "fourteen".
            held = tuple(answer for answer in answers if stands_alone(row.response, answer))
            if held:
                yield replace(row, spans=held)

    return store_rows(cache, {"rwku": VERSION, "marked": hash_rows(table), "answers": answers}, marked)


def _read_retain(file: Path, cache: Path) -> StoredRows:
    """Reads the user's own rows to rehearse: texts, or prompts with responses."""

    def read_rows(notes: Notes) -> Iterator[Row]:
        for number, record in enumerate(read_records(file, RETAIN), start=1):
            plain = "text" in record.fields
            prompt = "" if plain else record.text("prompt", RETAIN)
            yield Row(f"retain/{number}", prompt, record.text("text" if plain else "response", RETAIN), plain=plain)

    return store_rows(cache, {"rwku": VERSION, "retain": hash_file(file)}, read_rows)
