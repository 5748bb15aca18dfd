"""RWKU's files as suites: forget and neighbour probes, texts for membership inference, and what tells of utility."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from erulab.data import questions
from erulab.data import rwku_prompts as prompts
from erulab.data.measures import Choice, Generated, Measure, Overlap, Pooled, Separation, Summary, Texts
from erulab.data.questions import letters, question_of
from erulab.data.reading import Record, find_table, read_records
from erulab.data.rows import Role, Row, Suite
from erulab.data.sequences import Joined, Marked, pick
from erulab.data.tables import RowTable, file_hash, row_table
from erulab.errors import DataError

VERSION = 1  # of how files become rows, and of rwku_prompts: a change makes every key new

PROBE = '{"subject", "query", "answer", "type": str}'
TEXT = '{"text": str}'
MMLU = '{"question": str, "choices": list[str], "answer": int, "task": str, "examples": list of questions}'
BBH = '{"cot": str, "question": str, "answer": str}'
TRUTHFUL = '{"question": str, "mc1_targets": {"choices": list[str], "labels": list[int]}}'
TRIVIA = '{"question": str, "answers": list[str]}'
FLUENCY = '{"instruction": str}'

# A model is to stop at the end of the line. RWKU's code means to, but names the line break by its text, which no
# vocabulary of bytes (Llama 3's) holds: there it goes on for all 30 tokens.
RECALL = Generated(Overlap.rwku_recall, max_new_tokens=30, stops=("\n",))


@dataclass(frozen=True)
class Target:
    """One of the 200 people: the name, the folder with the files on them, and the config key that lists them."""

    name: str
    folder: Path
    key: str

    def file(self, name: str) -> Path | None:
        """The file of a table, whatever its format."""
        return find_table(self.folder, name)

    def table(self, cache: Path, name: str, schema: str, make: Callable[[Record], Row]) -> RowTable:
        """The rows that `make` gives for the objects of a file, with ids, facts and author of their own.

        Raises:
            DataError: the file is missing, or a row of it is damaged; with file and line.
        """
        file = self.file(name)
        if file is None:
            raise DataError(f"{self.folder} has no {name}.json ({self.key}={self.name})")

        def rows(extra: dict[str, Any]) -> Iterator[Row]:
            extra["kinds"] = []
            for number, record in enumerate(read_records(file, schema)):
                row_id = f"{self.name}/{name}/{number}"
                extra["kinds"].append(kind_of(record))
                yield replace(make(record), id=row_id, fact=row_id, author=self.name)

        depends_on = {"rwku": VERSION, "questions": questions.VERSION, "rows": name, "target": self.name}
        return row_table(cache, {**depends_on, "files": [file_hash(file)]}, rows)


@dataclass(frozen=True)
class Source:
    """How the rows of one file are read and measured."""

    suite: str
    file: str
    role: Role
    measure: Measure
    schema: str
    make: Callable[[Record], Row]


def suites(targets: Sequence[Target], cache: Path) -> tuple[Suite, ...]:
    """What the targets' files have rows for; a file other than the forget probes may be missing, for all targets.

    Raises:
        DataError
    """
    found: list[Suite] = []
    for source in SOURCES:
        missing = [target for target in targets if target.file(source.file) is None]
        if len(missing) == len(targets) and source.file not in REQUIRED:
            continue
        tables = [target.table(cache, source.file, source.schema, source.make) for target in targets]
        if source.file == ADVERSARIAL:
            found += _by_kind(source, tables)
        else:
            found.append(Suite(source.suite, source.role, Joined(tables), source.measure))
    return tuple(found)


def summaries(suites: Sequence[Suite]) -> tuple[Summary, ...]:
    """Figures over several suites, each question counting once; FM against RM."""
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


def kind_of(record: Record) -> str:
    """The type of an adversarial probe; "cross lingual (French)" is one of "cross lingual"."""
    return str(record.fields.get("type") or "").partition(" (")[0].strip().lower()


def running_text(record: Record) -> Row:
    """A text as it stands."""
    return Row("", "", record.text("text", TEXT), plain=True)


def _by_kind(source: Source, tables: Sequence[RowTable]) -> list[Suite]:
    """The adversarial probes, a suite for each type."""
    kinds = sorted({kind for table in tables for kind in table.extra["kinds"]})

    def of(kind: str) -> Joined[Row]:
        parts = [pick(table, [i for i, own in enumerate(table.extra["kinds"]) if own == kind]) for table in tables]
        return Joined([part for part in parts if isinstance(part, Marked)])

    return [
        Suite(
            f"{source.suite}_{re.sub('[^a-z0-9]+', '_', kind)}",
            source.role,
            of(kind),
            source.measure,
            adversarial=True,
        )
        for kind in kinds
    ]


def _probe(asked: Callable[[str], str], record: Record) -> Row:
    return Row("", asked(record.text("query", PROBE)), record.text("answer", PROBE), lead=prompts.ANSWER)


def _adversarial(record: Record) -> Row:
    record.text("type", PROBE)
    prompt, lead = prompts.attack(record.text("query", PROBE), kind_of(record))
    return Row("", prompt, record.text("answer", PROBE), lead=lead)


def _mmlu(record: Record) -> Row:
    examples = [question_of(example) for example in record.inners("examples", MMLU)]
    asked = question_of(record)
    right, wrong = letters(asked.choices, asked.answer)
    return Row(
        "",
        prompts.mmlu(record.text("task", MMLU), examples, asked),
        right,
        options=wrong,
        lead=prompts.ANSWER,
    )


def _bbh(record: Record) -> Row:
    prompt = prompts.bbh(record.text("cot", BBH), record.text("question", BBH))
    return Row("", prompt, record.text("answer", BBH), lead=prompts.SHORT)


def _truthfulqa(record: Record) -> Row:
    targets = record.inner("mc1_targets", TRUTHFUL)
    choices, labels = targets.texts("choices", TRUTHFUL), targets.fields.get("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or labels.count(1) != 1:
        raise DataError(f"{record.where}: mc1_targets must have one label a choice, and one of them 1; {TRUTHFUL}")
    answers = [f" {choice}" for choice in choices]
    right = answers.pop(labels.index(1))
    prompt = prompts.truthfulqa(record.text("question", TRUTHFUL))
    return Row("", prompt, right, options=tuple(answers), lead=prompts.SHORT)


def _triviaqa(record: Record) -> Row:
    answers = record.texts("answers", TRIVIA)
    if not answers:
        raise DataError(f"{record.where}: field 'answers' is empty; expected {TRIVIA}")
    prompt = prompts.triviaqa(record.text("question", TRIVIA))
    return Row("", prompt, answers[0], accepted=answers[1:], lead=prompts.SHORT)


def _fluency(record: Record) -> Row:
    return Row("", prompts.fluency(record.text("instruction", FLUENCY)), "")


ADVERSARIAL = "forget_level3"
REQUIRED = ("forget_level1", "forget_level2", ADVERSARIAL)
SOURCES = (
    Source("forget_fb", "forget_level1", Role.FORGET, RECALL, PROBE, partial(_probe, prompts.cloze)),
    Source("forget_qa", "forget_level2", Role.FORGET, RECALL, PROBE, partial(_probe, prompts.question)),
    Source("forget_aa", ADVERSARIAL, Role.HELDOUT, RECALL, PROBE, _adversarial),
    Source("mia_forget", "forget_mia", Role.FORGET, Texts(), TEXT, running_text),
    Source("neighbor_fb", "neighbor_level1", Role.RETAIN, RECALL, PROBE, partial(_probe, prompts.cloze)),
    Source("neighbor_qa", "neighbor_level2", Role.RETAIN, RECALL, PROBE, partial(_probe, prompts.question)),
    Source("mia_retain", "retain_mia", Role.RETAIN, Texts(), TEXT, running_text),
    Source("mmlu", "retain_mmlu", Role.RETAIN, Choice(), MMLU, _mmlu),
    Source("bbh", "retain_bbh", Role.RETAIN, Generated(Overlap.final_answer, 256), BBH, _bbh),
    # The same responses, scored as RWKU's code does: what its published figures compare with.
    Source("bbh_as_published", "retain_bbh", Role.RETAIN, Generated(Overlap.final_answer_character, 256), BBH, _bbh),
    Source("truthfulqa", "truthful", Role.RETAIN, Choice(), TRUTHFUL, _truthfulqa),
    Source("triviaqa", "triviaqa", Role.RETAIN, Generated(Overlap.f1, 30), TRIVIA, _triviaqa),
    Source("fluency", "fluency", Role.RETAIN, Generated(Overlap.entropy, 256), FLUENCY, _fluency),
)
