"""Scoring target, unlearned model and oracle by the suites of the data set and of the benchmarks beside it."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.data.measures import Answers, Generated
from erulab.data.rows import Suite
from erulab.evaluation.aggregate import against_oracle, aggregate
from erulab.evaluation.evaluate import RowScore, evaluate, rows_of
from erulab.evaluation.knowledge import knowledge_of, residual
from erulab.models.loaded import LoadedModel
from erulab.options import NOT_IN_SCORES, EvaluationOptions
from erulab.reporting.console import announce
from erulab.stages.cache import Product
from erulab.stages.context import Context, LoadedBenchmark
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

VERSION = 2  # of what this stage computes: a change scores every model anew


def score_model(context: Context, role: str, ref: ModelRef) -> tuple[list[list[RowScore]], list[Product]]:
    """Row scores of the target, unlearned model or oracle: of the data set, and of each benchmark beside it.

    Kept under the model's key, the rows' content and the options: never under a path. The model is loaded once, and
    only if one of them has to be made.
    """
    load = functools.cache(lambda: context.loader.load(ref))
    made = [_score(context, prepared, role, ref, load) for prepared in (context.data, *context.extra_benchmarks)]
    return [rows for rows, _ in made], [product for _, product in made if product is not None]


def _score(
    context: Context, prepared: LoadedBenchmark, role: str, ref: ModelRef, load: Callable[[], LoadedModel]
) -> tuple[list[RowScore], Product | None]:
    context.stop.check()
    suites = prepared.selected.suites
    if not suites:
        return [], None
    # `evaluated` says what `suites` chose.
    options = {k: v for k, v in asdict(context.config.evaluation).items() if k not in (*NOT_IN_SCORES, "suites")}
    depends_on = {
        "stage": "evaluate",
        "version": VERSION,
        "model": ref.key,
        "chat": context.chat.identity(),
        "suites": prepared.identity_of_selected,
        "data": prepared.identity,
        "evaluation": options,
    }

    def make(folder: Path) -> None:
        if context.ranks.first:
            count = sum(len(rows_of(suite, context.config.evaluation)) for suite in suites)
            what = "unlearned model" if role == "unlearned" else role
            announce(f"scoring the {what} on {count} rows of {prepared.fitted.name}")
        rows = evaluate(load(), suites, context.config.evaluation, context.ranks)
        if context.ranks.first:
            lines = [json.dumps(row.to_json(), allow_nan=True) for row in rows]
            (folder / "rows.jsonl").write_text("\n".join(lines))

    product = context.cache.produce("evaluated", depends_on, make, rerun=context.config.rerun)
    text = (product.folder / "rows.jsonl").read_text()
    return [RowScore.from_json(json.loads(line)) for line in text.split("\n")], product


def scores(context: Context, rows: Mapping[str, Sequence[list[RowScore]]]) -> dict[str, dict[str, Any]]:
    """scores.json: flat metrics of each model; what needs the oracle is there only where an oracle is.

    Args:
        rows: "target", "unlearned", "oracle" (those there are) -> row scores of the data set and of each benchmark
            beside it, whose figures bear its name in front.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, scored in rows.items():
        compared = rows.get("oracle", [None] * len(scored))
        figures = [
            aggregate(own, part.fitted) | against_oracle(own, oracle, part.fitted)
            for own, oracle, part in zip(scored, compared, (context.data, *context.extra_benchmarks), strict=True)
        ]
        result[name] = dict(figures[0])
        for part, more in zip(context.extra_benchmarks, figures[1:], strict=True):
            # A benchmark's name is not said twice (tofu/forget/rouge, but mmlu/accuracy), unless the data set's own
            # suites have taken that name.
            own = part.fitted.name
            said = all(figure.startswith(own) and figure not in result[name] for figure in more)
            result[name] |= {figure if said else f"{own}/{figure}": value for figure, value in more.items()}
    if {"target", "unlearned", "oracle"} <= rows.keys():
        values, clusters = knowledge_of(rows["unlearned"][0])
        target, _ = knowledge_of(rows["target"][0])
        retrained, _ = knowledge_of(rows["oracle"][0])
        figure = residual(values, target, retrained, clusters)
        result["unlearned"] |= {
            "residual": figure.value,
            "residual_low": figure.low,
            "residual_high": figure.high,
        }
        if figure.note:
            result["unlearned"]["residual_note"] = figure.note
    return result


def samples(rows: Mapping[str, Sequence[list[RowScore]]], context: Context) -> list[dict[str, str]]:
    """samples.json: the first greedy responses of the data set's suites, of every model side by side."""
    count = context.config.evaluation.samples
    by_model = {model: {(r.suite, r.id): r.response for r in scored[0]} for model, scored in rows.items()}
    return [
        {
            "suite": suite.name,
            "role": suite.role.value,
            "prompt": row.prompt,
            "reference": row.response,
            **{
                model: responses[suite.name, row.id]
                for model, responses in by_model.items()
                if (suite.name, row.id) in responses
            },
        }
        for suite in context.data.selected.suites
        for row in (suite.rows[:count] if _generates(suite, context.config.evaluation) else ())
        if row.prompt
    ]


def _generates(suite: Suite, options: EvaluationOptions) -> bool:
    return options.generate and isinstance(suite.measure, Answers | Generated)
