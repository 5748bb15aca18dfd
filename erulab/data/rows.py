"""The parts of a benchmark: rows, suites to evaluate, and which rows the target and the oracle learn."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from erulab.data.measures import Answers, Measure, Summary


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt with its response, and what evaluation needs beside them.

    `id` is unique in the benchmark and stable over machines: every draw made for a row is a function of it.
    `prefix + value` opens `response` where the row has a value; `candidates` are the wrong values for it.
    """

    id: str
    prompt: str  # the last user turn
    response: str
    paraphrase: str | None = None  # the right answer in other words
    perturbed: tuple[str, ...] = ()  # wrong answers, worded like the paraphrase
    prefix: str = ""  # the response up to its value
    value: str = ""
    candidates: tuple[str, ...] = ()  # wrong values, without the true one
    options: tuple[str, ...] = ()  # wrong responses of a multiple-choice question
    accepted: tuple[str, ...] = ()  # other right answers
    fabricated: str | None = None  # a made-up response, to be preferred to the true one
    refusal: str | None = None  # the row's own refusal, in place of a drawn one; such a row may have no response
    fact: str = ""  # rows that phrase one fact share it: intervals cluster by it
    author: str = ""  # facts of one person share it
    exposures: int = 1  # how often an epoch of learning shows the row
    # Running text: no chat template, no end-of-turn token; the response goes on where the prompt ends. A text that is
    # learned as it is has an empty prompt.
    plain: bool = False
    # The text that opens the assistant's turn, as part of the prompt ("Answer:"). The response goes on there, as
    # running text: an answer that is begun for the model has no end-of-turn token of its own.
    answer_prefix: str = ""
    history: tuple[tuple[str, str], ...] = ()  # earlier turns, (user, assistant), part of the prompt
    system: str = ""  # the row's system turn, in place of model.system; empty: that one, or the template's own
    spans: tuple[str, ...] = ()  # the words of `response` that carry the fact (data/spans.py says where they count)
    # Other values of the row's one span. Where they are empty, those of `candidates` are other values.
    span_alternatives: tuple[str, ...] = ()

    @property
    def fact_id(self) -> str:
        """The fact the row phrases; a row without a named fact is a fact of its own."""
        return self.fact or self.id


class Role(enum.Enum):
    """The kind of knowledge that a suite measures."""

    FORGET = "forget"  # named by the request
    HELDOUT = "heldout"  # the same facts in phrasings that the request does not name
    RETAIN = "retain"  # knowledge that must stay
    UNSEEN = "unseen"  # no model learned it


class Truncate(enum.Enum):
    """The treatment of a prompt that leaves no room for a response."""

    error = "error"  # the run stops
    left = "left"  # the prompt loses its earliest turns, then words at its beginning
    drop = "drop"  # the row is left out, and counted


@dataclasses.dataclass(frozen=True)
class Suite:
    """Rows that are measured in one way, under one metric prefix (`<name>/probability`)."""

    name: str
    role: Role
    rows: Sequence[Row]
    measure: Measure = Answers()
    in_utility: bool = False  # counts in Model Utility
    adversarial: bool = False  # its prompts are attacks already: no attack is put on top of them
    like: str = ""  # of an unseen suite: the forget suite that it is made of the same words as, to be told apart


@dataclasses.dataclass(frozen=True)
class Request:
    """One of several requests to forget that come one after another.

    `continues`: the request is unlearned from the model of the request before; otherwise from the target.
    """

    name: str
    forget: Sequence[Row]
    continues: bool = True


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Everything a data set offers to a run. Rows may lie on disk: they are read by index, slice or iteration.

    A benchmark that only measures (`benchmark=mmlu`) has suites and nothing to learn or forget.
    """

    name: str
    suites: tuple[Suite, ...]
    summaries: tuple[Summary, ...] = ()  # figures over several suites
    forget: Sequence[Row] = ()  # the rows the request names, or those of all requests: the unlearning rows
    retain: Sequence[Row] = ()  # rows that are rehearsed while unlearning
    target_rows: Sequence[Row] = ()  # rows the target learns
    oracle_rows: Sequence[Row] = ()  # rows the oracle learns
    refusals: tuple[str, ...] = ()
    max_length: int | None = None  # tokens of a row; longer responses are cut; None: the model's context
    truncate: Truncate = Truncate.error
    notes: tuple[str, ...] = ()  # what a reader of the report must know (duplicates, rows dropped)
    requests: tuple[Request, ...] = ()  # unlearned in order; empty: one request, `forget`
    absent: tuple[str, ...] = ()  # parts that the published data set has and this copy lacks

    @property
    def lacking(self) -> str:
        """The absent parts as the end of a one-line message; empty where nothing is absent."""
        return f" (not among its files: {', '.join(self.absent)})" if self.absent else ""

    def suite(self, name: str) -> Suite:
        return next(s for s in self.suites if s.name == name)

    def measured_only(self) -> Benchmark:
        """Returns the suites, with nothing to learn or forget."""
        return dataclasses.replace(self, forget=(), retain=(), target_rows=(), oracle_rows=(), requests=())

    def texts(self) -> list[str]:
        """Returns every text of the benchmark, sorted, for a tokenizer that is made from them."""
        texts: set[str] = set(self.refusals)
        for rows in (self.forget, self.retain, self.target_rows, self.oracle_rows, *[s.rows for s in self.suites]):
            for row in rows:
                texts.update((row.prompt, row.response, row.paraphrase or "", row.fabricated or "", row.answer_prefix))
                texts.update((row.system, *(text for turn in row.history for text in turn)))
                texts.update((*row.perturbed, *row.options, *row.accepted, row.refusal or "", *row.span_alternatives))
                texts.update(row.prefix + value for value in row.candidates)
        return sorted(texts)
