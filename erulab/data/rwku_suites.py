"""RWKU's files as suites: forget and neighbour probes, texts for membership inference, and utility."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from erulab.data import questions
from erulab.data import rwku_prompts as prompts
from erulab.data.dataset_cache import Notes
from erulab.data.measures import Choice, Generated, Measure, Overlap, Pooled, Separation, Summary, Texts
from erulab.data.questions import question_of, split_letters
from erulab.data.reading import Record, find_table, read_records
from erulab.data.rows import Role, Row, Suite
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.errors import DataError

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

VERSION = 1  # of how files become rows, and of rwku_prompts: a change makes every key new

PROBE = '{"subject", "query", "answer", "type": str}'
TEXT = '{"text": str}'
MMLU = '{"question": str, "choices": list[str], "answer": int, "task": str, "examples": list of questions}'
BBH = '{"cot": str, "question": str, "answer": str}'
TRUTHFUL = '{"question": str, "mc1_targets": {"choices": list[str], "labels": list[int]}}'
TRIVIA = '{"question": str, "answers": list[str]}'
FLUENCY = '{"instruction": str}'

# A response ends at the line's end. RWKU's code means that too, but names the line break by its text, which no
# byte-level vocabulary (Llama 3's) holds: there responses go on for all 30 tokens.
RECALL = Generated(Overlap.rwku_recall, max_new_tokens=30, stops=("\n",))


@dataclass(frozen=True)
class Target:
    """One of the 200 people: the name, the folder with the files on them, and the config key that lists them."""

    name: str
    folder: Path
    key: str

    def file(self, name: str) -> Path | None:
        """Finds the file of a table, whatever its format."""
        return find_table(self.folder, name)

    def table(self, cache: Path, name: str, schema: str, make: Callable[[Record], Row]) -> StoredRows:
        """Reads the rows of a file, with ids, facts and author of their own; notes hold each row's kind of probe.

        Args:
            cache: the run's cache folder.
            name: the table's name, such as forget_level1.
            schema: what its records must look like, for messages.
            make: record -> row.
        Raises:
            DataError: the file is missing, or a row of it is damaged; with file and line.
        """
        file = self.file(name)
        if file is None:
            raise DataError(f"{self.folder} has no {name}.json ({self.key}={self.name})")

        def read_rows(notes: Notes) -> Iterator[Row]:
            notes["kinds"] = []
            for number, record in enumerate(read_records(file, schema)):
                row_id = f"{self.name}/{name}/{number}"
                notes["kinds"].append(probe_kind(record))
                yield replace(make(record), id=row_id, fact=row_id, author=self.name)

        depends_on = {"rwku": VERSION, "questions": questions.VERSION, "rows": name, "target": self.name}
        return store_rows(cache, {**depends_on, "files": [hash_file(file)]}, read_rows)


@dataclass(frozen=True)
class SuiteFile:
    """A file of RWKU, and how its rows are read and measured."""

    suite: str
    file: str
    role: Role
    measure: Measure
    schema: str
    make: Callable[[Record], Row]


def rwku_suites(targets: Sequence[Target], cache: Path) -> tuple[Suite, ...]:
    """Returns a suite for each file that is there; any but the forget probes may be missing, for all targets alike.

    Raises:
        DataError: a file is damaged, or there for some targets only.
    """
    found: list[Suite] = []
    for source in SUITE_FILES:
        missing = [target for target in targets if target.file(source.file) is None]
        if len(missing) == len(targets) and source.file not in REQUIRED:
            continue
        tables = [target.table(cache, source.file, source.schema, source.make) for target in targets]
        if source.file == ADVERSARIAL:
            found += _suites_by_kind(source, tables)
        else:
            found.append(Suite(source.suite, source.role, StoredRows.concatenate(tables), source.measure))
    return tuple(found)


def cloze_probes(target: Target, cache: Path) -> StoredRows:
    """Returns the target's cloze probes, whose responses are the words that complete a sentence on the target."""
    source = next(one for one in SUITE_FILES if one.suite == "forget_fb")
    return target.table(cache, source.file, source.schema, source.make)


def rwku_summaries(suites: Sequence[Suite]) -> tuple[Summary, ...]:
    """Returns figures over several suites, each question counting once, and membership inference (FM against RM)."""
    names = [suite.name for suite in suites]
    adversarial = tuple(name for name in names if name.startswith("forget_aa_"))
    pools = {
        "forget_aa": adversarial,
        "forget_all": ("forget_fb", "forget_qa", *adversarial),
        "neighbor_all": ("neighbor_fb", "neighbor_qa"),
    }
    pooled = [Pooled(name, Overlap.rwku_recall.value, parts) for name, parts in pools.items() if {*parts} <= {*names}]
    separated = [Separation("mia", "mia_forget", "mia_retain")] if {"mia_forget", "mia_retain"} <= {*names} else []
    return (*pooled, *separated)


def probe_kind(record: Record) -> str:
    """Returns the type of an adversarial probe; "cross lingual (French)" is of type "cross lingual"."""
    return str(record.fields.get("type") or "").partition(" (")[0].strip().lower()


def text_row(record: Record) -> Row:
    """Returns a text as a row of running text."""
    return Row("", "", record.text("text", TEXT), plain=True)


def _suites_by_kind(source: SuiteFile, tables: Sequence[StoredRows]) -> list[Suite]:
    """Returns the adversarial probes as one suite per type."""
    kinds = sorted({kind for table in tables for kind in table.notes["kinds"]})

    def rows_of_kind(kind: str) -> StoredRows:
        return StoredRows.concatenate(
            [table.select(np.flatnonzero(np.array(table.notes["kinds"]) == kind)) for table in tables]
        )

    return [
        Suite(
            f"{source.suite}_{re.sub('[^a-z0-9]+', '_', kind)}",
            source.role,
            rows_of_kind(kind),
            source.measure,
            adversarial=True,
        )
        for kind in kinds
    ]


def _probe_row(asked: Callable[[str], str], record: Record) -> Row:
    return Row("", asked(record.text("query", PROBE)), record.text("answer", PROBE), answer_prefix=prompts.ANSWER)


def _adversarial_row(record: Record) -> Row:
    record.text("type", PROBE)
    prompt, answer_prefix = prompts.adversarial_prompt(record.text("query", PROBE), probe_kind(record))
    return Row("", prompt, record.text("answer", PROBE), answer_prefix=answer_prefix)


def _mmlu_row(record: Record) -> Row:
    examples = [question_of(example) for example in record.inners("examples", MMLU)]
    asked = question_of(record)
    right, wrong = split_letters(asked.choices, asked.answer)
    return Row(
        "",
        prompts.mmlu_prompt(record.text("task", MMLU), examples, asked),
        right,
        options=wrong,
        answer_prefix=prompts.ANSWER,
    )


def _bbh_row(record: Record) -> Row:
    prompt = prompts.bbh_prompt(record.text("cot", BBH), record.text("question", BBH))
    return Row("", prompt, record.text("answer", BBH), answer_prefix=prompts.SHORT)


def _truthfulqa_row(record: Record) -> Row:
    targets = record.inner("mc1_targets", TRUTHFUL)
    choices, labels = targets.texts("choices", TRUTHFUL), targets.fields.get("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or labels.count(1) != 1:
        raise DataError(f"{record.where}: mc1_targets must have one label per choice, and one of them 1; {TRUTHFUL}")
    answers = [f" {choice}" for choice in choices]
    right = answers.pop(labels.index(1))
    prompt = prompts.truthfulqa_prompt(record.text("question", TRUTHFUL))
    return Row("", prompt, right, options=tuple(answers), answer_prefix=prompts.SHORT)


def _triviaqa_row(record: Record) -> Row:
    answers = record.texts("answers", TRIVIA)
    if not answers:
        raise DataError(f"{record.where}: field 'answers' is empty; expected {TRIVIA}")
    prompt = prompts.triviaqa_prompt(record.text("question", TRIVIA))
    return Row("", prompt, answers[0], accepted=answers[1:], answer_prefix=prompts.SHORT)


def _fluency_row(record: Record) -> Row:
    return Row("", prompts.fluency_prompt(record.text("instruction", FLUENCY)), "")


ADVERSARIAL = "forget_level3"
REQUIRED = ("forget_level1", "forget_level2", ADVERSARIAL)
SUITE_FILES = (
    SuiteFile("forget_fb", "forget_level1", Role.FORGET, RECALL, PROBE, partial(_probe_row, prompts.cloze_prompt)),
    SuiteFile("forget_qa", "forget_level2", Role.FORGET, RECALL, PROBE, partial(_probe_row, prompts.question_prompt)),
    SuiteFile("forget_aa", ADVERSARIAL, Role.HELDOUT, RECALL, PROBE, _adversarial_row),
    SuiteFile("mia_forget", "forget_mia", Role.FORGET, Texts(), TEXT, text_row),
    SuiteFile("neighbor_fb", "neighbor_level1", Role.RETAIN, RECALL, PROBE, partial(_probe_row, prompts.cloze_prompt)),
    SuiteFile(
        "neighbor_qa", "neighbor_level2", Role.RETAIN, RECALL, PROBE, partial(_probe_row, prompts.question_prompt)
    ),
    SuiteFile("mia_retain", "retain_mia", Role.RETAIN, Texts(), TEXT, text_row),
    SuiteFile("mmlu", "retain_mmlu", Role.RETAIN, Choice(), MMLU, _mmlu_row),
    SuiteFile("bbh", "retain_bbh", Role.RETAIN, Generated(Overlap.final_answer, 256), BBH, _bbh_row),
    # The same responses, scored as RWKU's code does: compare this one with its published figures.
    SuiteFile(
        "bbh_as_published", "retain_bbh", Role.RETAIN, Generated(Overlap.final_answer_character, 256), BBH, _bbh_row
    ),
    SuiteFile("truthfulqa", "truthful", Role.RETAIN, Choice(), TRUTHFUL, _truthfulqa_row),
    SuiteFile("triviaqa", "triviaqa", Role.RETAIN, Generated(Overlap.f1, 30), TRIVIA, _triviaqa_row),
    SuiteFile("fluency", "fluency", Role.RETAIN, Generated(Overlap.entropy, 256), FLUENCY, _fluency_row),
)
