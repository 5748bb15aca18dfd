"""Evaluates one model on the suites of a benchmark: the figures of each row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import erulab.evaluation.protocols  # noqa: F401  # registers erulab's own measures
from erulab.data.rows import Suite
from erulab.evaluation import open_unlearning
from erulab.evaluation.generation import generate
from erulab.evaluation.measures import RequestBuilder, RowResults, request_key, row_requests
from erulab.evaluation.prompt import Prompt
from erulab.evaluation.refusal_odds import refusal_log_odds
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.scoring import score
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
) -> list[RowScore]:
    """Scores the evaluated rows of the suites, in order. Every rank gets the scores of all rows.

    Args:
        loaded: the model, in evaluation mode.
        suites: the suites to score.
        options: the run's `evaluation` options.
        for_attacks_only: see `RequestBuilder`.
        refusal: compared with the right answers of retain rows, unless a row has its own; "" for no such figure.
        respond: returns one response per prompt, in order, on every rank; None: the model generates them here.
    """
    builder = RequestBuilder(loaded.chat, options, for_attacks_only)
    suite_rows = [(suite, row) for suite in suites for row in evaluated_rows(suite, options)]
    requests_of_rows = [row_requests(suite, row, builder) for suite, row in suite_rows]
    # One pass for all suites and figures. Scores are looked up by content, because many rows make the same request.
    requests = [request for own in requests_of_rows for request in own.requests]
    with_moments = {request for own in requests_of_rows if own.needs_moments for request in own.requests}
    scores = (
        score(loaded.policy, requests, loaded.pad_id, options.batch_tokens, ranks, with_moments) if requests else []
    )
    known = dict(zip(map(request_key, requests), scores, strict=True))
    prompts = [own.prompt for own in requests_of_rows if own.prompt is not None]
    if respond is None:
        respond = functools.partial(generate, loaded, batch_tokens=options.batch_tokens, ranks=ranks)
    responses = iter(respond(prompts) if prompts else [])
    compat: list[dict[str, float]] = [{} for _ in suite_rows]
    if options.compat is Compat.open_unlearning and not for_attacks_only:
        compat = open_unlearning.row_figures(loaded, suite_rows, options, ranks)
    refused = refusal_log_odds(loaded, suite_rows, refusal, options.batch_tokens, ranks) if refusal else {}
    rows = []
    for (suite, row), own, theirs in zip(suite_rows, requests_of_rows, compat, strict=True):
        response = None if own.prompt is None else next(responses)
        figures = own.figures(RowResults(known, response)) | refused.get((suite.name, row.id), {})
        rows.append(
            RowScore(row.id, suite.name, suite.role.value, row.fact_id, row.author, figures, response or "", theirs)
        )
    return rows
