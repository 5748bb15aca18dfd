"""Rewrites of a row's prompt. The answer, its id and its figures stay the same, so scores compare with the plain
question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from erulab.attacks.base import Inapplicable
from erulab.data.measures import Texts
from erulab.evaluation.suites import forget_suites

if TYPE_CHECKING:
    from erulab.attacks.base import Lab
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.evaluation.row_score import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat

Rewrite = Callable[["Row"], "Row"]
CLOSING = 8  # tokens; no template's end of turn has more


def asked_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Returns `ordinary_suites`.

    Raises:
        Inapplicable: there are none.
    """
    found = ordinary_suites(benchmark)
    if not found:
        raise Inapplicable("no forget row that is measured has a prompt of the usual kind that could be rewritten")
    return found


def ordinary_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Returns the forget and held-out rows with a prompt, without those whose prompts are attacks already."""
    return _suites_with_prompts(benchmark, adversarial=False)


def adversarial_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Returns the data set's own adversarial prompts, if it has some."""
    return _suites_with_prompts(benchmark, adversarial=True)


def _suites_with_prompts(benchmark: Benchmark, *, adversarial: bool) -> tuple[Suite, ...]:
    # Texts for membership inference ask nothing, even if they have a prompt.
    suites = [
        replace(suite, rows=tuple(row for row in suite.rows if row.prompt))
        for suite in forget_suites(benchmark)
        if suite.adversarial is adversarial and not isinstance(suite.measure, Texts)
    ]
    return tuple(suite for suite in suites if suite.rows)


def score_rewritten(lab: Lab, subject: LoadedModel, rewrite: Rewrite, suites: Sequence[Suite]) -> list[RowScore]:
    """Scores a model on rewritten rows; a row whose rewritten prompt does not fit the context is scored as it is.

    Args:
        lab: scores the model.
        subject: the model.
        rewrite: row -> rewritten row.
        suites: the suites with the rows to rewrite.
    """
    return lab.score(subject, rewrite_suites(suites, rewrite_if_it_fits(rewrite, subject.chat)))


def rewrite_suites(suites: Sequence[Suite], rewrite: Rewrite) -> list[Suite]:
    """Returns the suites with every row rewritten."""
    return [replace(suite, rows=tuple(rewrite(row) for row in suite.rows)) for suite in suites]


def rewrite_if_it_fits(rewrite: Rewrite, chat: ChatFormat) -> Rewrite:
    """Returns a rewrite that leaves a row unchanged if the rewritten one does not fit the model's context."""

    def checked_rewrite(row: Row) -> Row:
        other = rewrite(row)
        return other if fits_context(other, chat) else row

    return checked_rewrite


def fits_context(row: Row, chat: ChatFormat) -> bool:
    """Returns whether the prompt with each answer that may be scored fits the model's context."""
    values = [row.prefix + value + row.response[len(row.prefix + row.value) :] for value in row.candidates]
    answers = [row.response, row.paraphrase or "", *row.perturbed, *row.options, *values]
    limit = chat.limit(None)
    opening = len(chat.encode_prompt(row))
    # A token stands for at least one byte, except tokens that end a turn; so most answers need not be tokenised.
    if opening + max(len(answer.encode()) for answer in answers) + CLOSING <= limit:
        return True
    return max(len(ids) for ids, _ in chat.encode_batch([row] * len(answers), answers)) <= limit
