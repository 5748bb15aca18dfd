"""Scoring target, unlearned model and oracle by the benchmark's suites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.cache import Product
from erulab.console import announce
from erulab.evaluation.evaluate import RowScore, aggregate, evaluate, forget_quality, rows_of
from erulab.evaluation.knowledge import knowledge_of, residual
from erulab.stages.context import Context, ModelRef

VERSION = 1  # of what this stage computes: a change scores every model anew


def check(context: Context) -> None:
    """Whether every row can be read by the model, before anything is trained.

    Raises:
        DataError: names the row that cannot.
    """
    _ = context.evaluated  # encodes them all


def score_model(context: Context, role: str, ref: ModelRef) -> tuple[list[RowScore], Product]:
    """Row scores of the target, unlearned model or oracle.

    Kept under the model's key, the rows' content and the options: never under a path.
    """
    suites = context.benchmark.suites
    options = {k: v for k, v in asdict(context.config.evaluation).items() if k not in ("batch_tokens", "samples")}
    depends_on = {
        "stage": "evaluate", "version": VERSION, "model": ref.key, "chat": context.chat.identity(),
        "suites": context.evaluated,
        "data": context.data_identity, "evaluation": options,
    }  # fmt: skip

    def make(folder: Path) -> None:
        if context.ranks.first:
            count = sum(len(rows_of(suite, context.config.evaluation)) for suite in suites)
            announce(f"scoring the {role} on {count} rows")
        rows = evaluate(context.load(ref), suites, context.config.evaluation, context.ranks)
        if context.ranks.first:
            lines = [json.dumps(row.to_json(), allow_nan=True) for row in rows]
            (folder / "rows.jsonl").write_text("\n".join(lines))

    product = context.cache.produce("evaluated", depends_on, make, rerun=context.config.rerun)
    text = (product.folder / "rows.jsonl").read_text()
    return [RowScore.from_json(json.loads(line)) for line in text.split("\n")], product


def scores(context: Context, rows: Mapping[str, list[RowScore]]) -> dict[str, dict[str, Any]]:
    """scores.json: flat metrics of each model; what needs the oracle is there only where an oracle is.

    Args:
        rows: "target", "unlearned", "oracle" (those there are) -> row scores.
    """
    suites = context.benchmark.suites
    result: dict[str, dict[str, Any]] = {name: dict(aggregate(scored, suites)) for name, scored in rows.items()}
    oracle = rows.get("oracle")
    if oracle is None:
        return result
    for name, scored in rows.items():
        quality = forget_quality(scored, oracle)
        if quality is not None:
            result[name]["forget_quality"] = quality
    if {"target", "unlearned"} <= rows.keys():
        values, clusters = knowledge_of(rows["unlearned"])
        target, _ = knowledge_of(rows["target"])
        retrained, _ = knowledge_of(oracle)
        figure = residual(values, target, retrained, clusters)
        result["unlearned"] |= {
            "residual": figure.value, "residual_low": figure.low, "residual_high": figure.high,
        }  # fmt: skip
        if figure.note:
            result["unlearned"]["residual_note"] = figure.note
    return result


def samples(rows: Mapping[str, list[RowScore]], context: Context) -> list[dict[str, str]]:
    """samples.json: the first greedy responses of each suite, of every model side by side."""
    count = context.config.evaluation.samples
    by_model = {model: {(r.suite, r.id): r.response for r in scored} for model, scored in rows.items()}
    return [
        {
            "suite": suite.name, "role": suite.role.value, "prompt": row.prompt, "reference": row.response,
            **{model: responses[suite.name, row.id] for model, responses in by_model.items()
               if (suite.name, row.id) in responses},
        }
        for suite in context.benchmark.suites
        for row in suite.rows[:count]
    ]  # fmt: skip
