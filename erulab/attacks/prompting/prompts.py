"""Prompts that ask otherwise: a row in, a row out. What is known of it is scored as ever, under the same name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from erulab.attacks.base import Inapplicable, forget_suites
from erulab.data.measures import Texts

if TYPE_CHECKING:
    from erulab.attacks.base import Lab
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.evaluation.evaluate import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat

Rewrite = Callable[["Row"], "Row"]
CLOSING = 8  # more than any template's end of turn has tokens


def asked_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """As `ordinary_suites`.

    Raises:
        Inapplicable: there is no such row.
    """
    found = ordinary_suites(benchmark)
    if not found:
        raise Inapplicable("no forget row that is measured has a prompt of the usual kind to ask otherwise")
    return found


def ordinary_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """The forget and held-out rows that ask something, but for those that are attacks already: none is put on top."""
    return _asking(benchmark, adversarial=False)


def adversarial_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """The data set's own adversarial prompts, where it has some."""
    return _asking(benchmark, adversarial=True)


def _asking(benchmark: Benchmark, *, adversarial: bool) -> tuple[Suite, ...]:
    # Texts of membership inference ask nothing, also where they have a prompt.
    suites = [
        replace(suite, rows=tuple(row for row in suite.rows if row.prompt))
        for suite in forget_suites(benchmark)
        if suite.adversarial is adversarial and not isinstance(suite.measure, Texts)
    ]
    return tuple(suite for suite in suites if suite.rows)


def score_asked(lab: Lab, subject: LoadedModel, rewrite: Rewrite, suites: Sequence[Suite]) -> list[RowScore]:
    """What a model makes of the rows as `rewrite` asks them, of those that fit what it reads."""
    return lab.score(subject, rewritten(suites, fitting(rewrite, subject.chat)))


def rewritten(suites: Sequence[Suite], rewrite: Rewrite) -> list[Suite]:
    """The suites with every row asked otherwise."""
    return [replace(suite, rows=tuple(rewrite(row) for row in suite.rows)) for suite in suites]


def fitting(rewrite: Rewrite, chat: ChatFormat) -> Rewrite:
    """`rewrite`, where what it makes of a row fits what the model reads; other rows stay as they are."""

    def rewrite_if_it_fits(row: Row) -> Row:
        other = rewrite(row)
        return other if fits(other, chat) else row

    return rewrite_if_it_fits


def fits(row: Row, chat: ChatFormat) -> bool:
    """Whether the prompt and each answer that may be scored fit what the model reads."""
    values = [row.prefix + value + row.response[len(row.prefix + row.value) :] for value in row.candidates]
    answers = [row.response, row.paraphrase or "", *row.perturbed, *row.options, *values]
    limit = chat.limit(None)
    opening = len(chat.encode_prompt(row))
    # A token stands for a byte or more, but for those that end a turn: mostly no answer has to be tokenised.
    if opening + max(len(answer.encode()) for answer in answers) + CLOSING <= limit:
        return True
    return max(len(ids) for ids, _ in chat.encode_batch([row] * len(answers), answers)) <= limit
