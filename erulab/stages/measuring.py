"""The evaluate stage: all figures of all models of a run, from every program and model that has a say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.evaluation.row_score import RowScore
from erulab.stages import evaluate, external, judge, uds
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.kept_texts import kept_texts
from erulab.stages.response_nll import with_response_nll
from erulab.training.loader import ModelRef


@dataclass(frozen=True)
class Measured:
    """What was found out about the models of a run.

    rows: role -> row scores on the data set.
    scores, intervals, samples, judged: the contents of the files of these names; judged is None without a judge.
    depth: the content of uds.json; None if it was not asked for.
    external: the benchmarks that another program scored: name -> role -> versions and settings.
    products: what the cache holds of it.
    """

    rows: dict[str, list[RowScore]]
    scores: dict[str, dict[str, Any]]
    intervals: dict[str, dict[str, Any]]
    samples: list[dict[str, Any]]
    judged: str | None
    depth: dict[str, Any] | None
    external: Mapping[str, Mapping[str, Any]]
    products: list[Product]


def measure_models(context: Context, models: Mapping[str, ModelRef]) -> Measured:
    """Scores every model on the rows of all benchmarks, asks external programs and the judge if there are any,
    and patches states if `evaluation.uds` is set.

    Args:
        models: role ("target", "unlearned", "oracle", "oracle@2", ...) -> model, as far as the run has them.
    """
    rows: dict[str, list[list[RowScore]]] = {}
    elsewhere: dict[str, dict[str, external.ExternalScores]] = {}
    products: list[Product] = []
    for role, ref in models.items():
        context.stop.check()
        rows[role], made = evaluate.score_model(context, role, ref)
        elsewhere[role], asked = external.score_externally(context, role, ref)
        products += [*made, *asked]
    read, made = with_response_nll(context, rows, models.get("target"))
    products += made
    judged = None
    if context.config.evaluation.judge.is_named:
        judged = judge.judge_responses(context, read)
        read = judged.rows
        products += judged.products
    scores, intervals = evaluate.scores(context, evaluate.reported_rows(context, read))
    for role in scores:
        for one in elsewhere[role].values():
            scores[role] |= one.figures
            intervals[role] |= one.intervals
        if judged is not None:
            scores[role] |= judged.figures[role]
            intervals[role] |= judged.intervals[role]
    patches = context.config.evaluation.uds and "target" in models  # a checkpoint alone has no states to be put into
    depth = uds.depth_scores(context, models) if patches else None
    if depth is not None:
        products += depth.products
        for role, figures in depth.figures.items():
            scores[role] |= figures
            intervals[role] |= depth.intervals.get(role, {})
    artifacts = context.config.artifacts
    return Measured(
        rows={role: scored[0] for role, scored in rows.items()},
        scores=scores,
        intervals=intervals,
        samples=kept_texts(evaluate.samples(rows, context), artifacts),
        judged=None if judged is None else judge.judged_text(kept_texts(judged.lines, artifacts)),
        depth=None if depth is None else depth.curves,
        external=external.details(elsewhere),
        products=products,
    )
