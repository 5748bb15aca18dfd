"""Evaluates one model on the suites of a benchmark: the figures of each row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import erulab.evaluation.protocols  # noqa: F401  # registers erulab's own measures
from erulab.data.rows import Suite
from erulab.evaluation import open_unlearning
from erulab.evaluation.budget import Budget, choose_budget
from erulab.evaluation.drafts import begun_prompt
from erulab.evaluation.generation import generate
from erulab.evaluation.measures import RequestBuilder, RowResults, request_key, row_requests
from erulab.evaluation.prompt import Prompt
from erulab.evaluation.refusal_odds import refusal_requests
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.scoring import Watch, score
from erulab.evaluation.suites import evaluated_rows
from erulab.models.loaded import LoadedModel
from erulab.options import Compat, EvaluationOptions
from erulab.ranks import Ranks


def evaluate(
    loaded: LoadedModel,
    suites: Sequence[Suite],
    options: EvaluationOptions,
    ranks: Ranks,
    *,
    for_attacks_only: bool = False,
    refusal: str = "",
    respond: Callable[[Sequence[Prompt]], list[str]] | None = None,
    budget: Budget | None = None,
    watch: Watch | None = None,
) -> list[RowScore]:
    """Scores the evaluated rows of the suites, in order. Every rank gets the scores of all rows.

    Args:
        loaded: the model, in evaluation mode.
        suites: the suites to score.
        options: the run's `evaluation` options.
        for_attacks_only: see `RequestBuilder`.
        refusal: compared with the right answers of retain rows, unless a row has its own; "" for no such figure.
        respond: returns one response per prompt, in order, on every rank; None: the model generates them here.
        budget: tokens per forward; None: chosen from the options.
        watch: is told how far this rank is.
    """
    budget = budget or choose_budget(loaded, options, ranks)
    builder = RequestBuilder(loaded.chat, options, for_attacks_only)
    suite_rows = [(suite, row) for suite in suites for row in evaluated_rows(suite, options)]
    requests_of_rows = [row_requests(suite, row, builder) for suite, row in suite_rows]
    # One pass for all suites and figures. Scores are looked up by content, because many rows make the same request.
    refusals = refusal_requests(loaded.chat, suite_rows, refusal)
    requests = [request for own in requests_of_rows for request in own.requests]
    requests += [request for own in refusals.values() for request in (own.answer, own.refusal)]
    with_moments = {request for own in requests_of_rows if own.needs_moments for request in own.requests}
    scores = (
        score(loaded.policy, requests, loaded.pad_id, budget.scoring, ranks, with_moments, budget.head_positions, watch)
        if requests
        else []
    )
    known = dict(zip(map(request_key, requests), scores, strict=True))
    if respond is None:
        begun = [begun_prompt(own, known, loaded.chat.stop_ids) for own in requests_of_rows]
        respond = functools.partial(generate, loaded, batch_tokens=budget.generation, ranks=ranks, watch=watch)
    else:
        begun = [own.prompt for own in requests_of_rows]
    prompts = [prompt for prompt in begun if prompt is not None]
    responses = iter(respond(prompts) if prompts else [])
    compat: list[dict[str, float]] = [{} for _ in suite_rows]
    if options.compat is Compat.open_unlearning and not for_attacks_only:
        compat = open_unlearning.row_figures(loaded, suite_rows, options, ranks)
    rows = []
    for (suite, row), own, theirs in zip(suite_rows, requests_of_rows, compat, strict=True):
        response = None if own.prompt is None else next(responses)
        figures = own.figures(RowResults(known, response))
        if (suite.name, row.id) in refusals:
            figures |= refusals[suite.name, row.id].figures(known)
        rows.append(
            RowScore(row.id, suite.name, suite.role.value, row.fact_id, row.author, figures, response or "", theirs)
        )
    return rows
