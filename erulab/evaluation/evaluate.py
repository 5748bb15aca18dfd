"""One model on a benchmark's suites: figures of each row, and their means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erulab.data.encoding import Encoded
from erulab.data.rows import Role, Row, Suite
from erulab.evaluation import metrics, texts
from erulab.evaluation.generation import generate
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks

FORGET_ROLES = (Role.FORGET, Role.HELDOUT)


@dataclass(frozen=True)
class RowScore:
    """What one model makes of one row. `figures`: nll, probability, and those the row has the data for:
    log_truth_ratio, log_odds, choice, rouge, exact_match."""

    id: str
    suite: str
    role: str
    fact: str
    author: str
    figures: dict[str, float]
    response: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> RowScore:
        return RowScore(**plain)


@dataclass(frozen=True)
class _Requests:
    """A row's teacher-forced requests: its response, the right and wrong answers, the right and wrong values."""

    response: Encoded
    right: Encoded | None
    wrong: tuple[Encoded, ...]
    value: Encoded | None
    candidates: tuple[Encoded, ...]

    def all(self) -> list[Encoded]:
        single = [request for request in (self.response, self.right, self.value) if request is not None]
        return [*single, *self.wrong, *self.candidates]


def evaluate(
    loaded: LoadedModel, suites: Sequence[Suite], options: EvaluationOptions, ranks: Ranks, *, headline: bool = False
) -> list[RowScore]:
    """Scores every row of the suites, in order; every rank gets all of them.

    Args:
        headline: only what the attacks' figures are made of: a row with candidate values has no truth ratio then,
            and costs one forward, not five.
    """
    picked = [(suite, row) for suite in suites for row in rows_of(suite, options)]
    requests = [_requests(loaded, suite, row, headline) for suite, row in picked]
    flat = [encoded for request in requests for encoded in request.all()]
    # One pass for all metrics. Keyed by what is asked: many rows ask the same.
    scores = score(loaded.policy, flat, loaded.pad_id, options.batch_tokens, ranks)
    nll = dict(zip(map(_key, flat), scores, strict=True))
    responses = [""] * len(picked)
    if options.generate:
        prompts = [row.prompt for _, row in picked]
        responses = generate(loaded, prompts, options.max_new_tokens, options.batch_tokens, ranks)
    return [
        RowScore(row.id, suite.name, suite.role.value, row.fact or row.id, row.author,
                 _figures(row, request, nll, response if options.generate else None), response)
        for (suite, row), request, response in zip(picked, requests, responses, strict=True)
    ]  # fmt: skip


def rows_of(suite: Suite, options: EvaluationOptions) -> Sequence[Row]:
    """The rows that are evaluated: all of a forget suite, at most `evaluation.rows` of another."""
    return suite.rows if suite.role in FORGET_ROLES else suite.rows[: options.rows]


def aggregate(rows: Sequence[RowScore], suites: Sequence[Suite]) -> dict[str, float]:
    """Flat metrics: `<suite>/<figure>` with `<suite>/n`, `knowledge`, and `model_utility` over the suites in it."""
    result: dict[str, float] = {}
    for suite in suites:
        scored = [row.figures for row in rows if row.suite == suite.name]
        if not scored:
            continue
        result[f"{suite.name}/n"] = len(scored)
        for name in ("nll", "probability", "log_odds", "choice", "rouge", "exact_match"):
            values = [figures[name] for figures in scored if name in figures]
            if values:
                result[f"{suite.name}/{name}"] = math.fsum(values) / len(values)
        ratios = [figures["log_truth_ratio"] for figures in scored if "log_truth_ratio" in figures]
        if ratios:
            forget = suite.role in FORGET_ROLES
            ratio = metrics.truth_ratio_forget(ratios) if forget else metrics.truth_ratio_retain(ratios)
            result[f"{suite.name}/truth_ratio"] = ratio
    known = [row.figures["log_odds"] for row in knowledge_rows(rows)]
    if known:
        result["knowledge"] = math.fsum(known) / len(known)
    names = [f"{suite.name}/{name}" for suite in suites if suite.in_utility
             for name in ("probability", "rouge", "truth_ratio")]  # fmt: skip
    if names and all(name in result for name in names):
        result["model_utility"] = metrics.harmonic_mean([result[name] for name in names])
    return result


def knowledge_rows(rows: Sequence[RowScore]) -> list[RowScore]:
    """The rows whose log-odds tell what is still known of the forget facts."""
    roles = {role.value for role in FORGET_ROLES}
    return [row for row in rows if row.role in roles and "log_odds" in row.figures]


def forget_quality(rows: Sequence[RowScore], oracle: Sequence[RowScore]) -> float | None:
    """TOFU's Forget Quality on the rows that the request names; None where rows have no wrong answers."""
    mine, retrained = (
        [r.figures["log_truth_ratio"] for r in part if r.role == Role.FORGET.value and "log_truth_ratio" in r.figures]
        for part in (rows, oracle)
    )
    return metrics.forget_quality_of(mine, retrained) if mine and retrained else None


def _requests(loaded: LoadedModel, suite: Suite, row: Row, headline: bool) -> _Requests:
    def encode(response: str, span: tuple[int, int] | None = None) -> Encoded:
        return loaded.chat.encode(row.id, row.prompt, response, span)

    right_text = row.response if suite.truth_ratio == "answer" else row.paraphrase
    wrong = () if headline and row.candidates else row.perturbed or row.options
    value = None
    candidates: tuple[Encoded, ...] = ()
    if row.candidates:
        rest = row.response[len(row.prefix) + len(row.value) :]
        start = len(row.prefix)
        value = encode(row.response, (start, start + len(row.value)))
        candidates = tuple(encode(row.prefix + c + rest, (start, start + len(c))) for c in row.candidates)
    return _Requests(
        encode(row.response),
        encode(right_text if right_text is not None else row.response) if wrong else None,
        tuple(encode(text) for text in wrong), value, candidates,
    )  # fmt: skip


def _key(request: Encoded) -> tuple[tuple[int, ...], int, int]:
    return request.ids, request.start, request.end


def _figures(
    row: Row, request: _Requests, nll: dict[tuple[tuple[int, ...], int, int], tuple[float, int]], response: str | None
) -> dict[str, float]:
    def total(encoded: Encoded) -> float:
        return nll[_key(encoded)][0]

    def mean(encoded: Encoded) -> float:
        value, tokens = nll[_key(encoded)]
        return value / tokens

    own = mean(request.response)
    figures = {"nll": own, "probability": math.exp(-own)}
    odds: float | None = None
    if request.right is not None:
        right, wrong = mean(request.right), [mean(encoded) for encoded in request.wrong]
        figures["log_truth_ratio"] = metrics.log_truth_ratio(right, wrong)
        odds = metrics.log_odds(right, wrong)
        best = right < min(wrong)
        if row.options:
            figures["probability"] = metrics.probability_among(own, [mean(encoded) for encoded in request.wrong])
    if request.value is not None:
        # Summed over the value's tokens: candidates are whole values, not rates.
        right, wrong = total(request.value), [total(encoded) for encoded in request.candidates]
        odds, best = metrics.log_odds(right, wrong), right < min(wrong)
    if odds is not None:
        figures |= {"log_odds": odds, "choice": float(best)}
    if response is not None:
        figures["rouge"] = texts.rouge_recall(row.response, response)
        figures["exact_match"] = float(response.strip() == row.response.strip())
    return figures
