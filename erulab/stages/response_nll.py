"""How likely the target finds the responses that each model generated: fluency by a model that was not harmed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from erulab.data.rows import Role, Row
from erulab.evaluation.figures.comparisons import FLUENCY
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.scoring import score
from erulab.evaluation.suites import evaluated_rows
from erulab.models.loaded import LoadedModel
from erulab.reporting.progress import counting
from erulab.stages.cache import Product
from erulab.stages.context import Context, LoadedBenchmark
from erulab.training.loader import ModelRef

VERSION = 1  # part of the cache key
RESPONSE_NLL = "response_nll"

Scored = Mapping[str, Sequence[list[RowScore]]]


def with_response_nll(context: Context, rows: Scored, target: ModelRef | None) -> tuple[Scored, list[Product]]:
    """Returns the row scores with the figure `response_nll`: NLL per token of the generated response under the target.

    Rows without a response, with an empty one, or of authors that no model learned do not get it. The target is loaded
    once, and only if some model's responses are not in the cache.

    Args:
        rows: role -> row scores of the data set and of each extra benchmark.
        target: the model that reads all responses; without one the scores stay as they are.
    """
    if target is None:
        return rows, []
    load = functools.cache(lambda: context.loader.load(target))
    products: list[Product] = []
    result: dict[str, list[list[RowScore]]] = {}
    for role, scored in rows.items():
        result[role] = []
        for prepared, own in zip((context.data, *context.extra_benchmarks), scored, strict=True):
            found = _read_responses(context, prepared, own, role, target, load, products)
            result[role].append(found)
    return result, products


def _read_responses(
    context: Context,
    prepared: LoadedBenchmark,
    rows: list[RowScore],
    role: str,
    target: ModelRef,
    load: Callable[[], LoadedModel],
    products: list[Product],
) -> list[RowScore]:
    responding = [i for i, row in enumerate(rows) if _is_read(row)]
    if not responding:
        return rows
    context.stop.check()
    responses = json.dumps([(rows[i].suite, rows[i].id, rows[i].response) for i in responding])
    depends_on = {
        "stage": RESPONSE_NLL,
        "version": VERSION,
        "model": target.key,
        "chat": context.chat.identity(),
        "suites": prepared.identity_of_selected,
        "data": prepared.identity,
        "responses": hashlib.sha256(responses.encode()).hexdigest(),
    }

    def make(folder: Path) -> None:
        title = f"the target reads the {_model(role)}"
        opening = f"the target reads {len(responding)} responses of the {_model(role)} ({prepared.fitted.name})"
        asked = _asked_rows(context, prepared)
        loaded = load()
        requests = []
        for i in responding:
            row, response = asked[rows[i].suite, rows[i].id], rows[i].response
            # Without the end of turn, which a response that reached its limit does not have.
            requests.append(loaded.chat.encode(row, response, (0, len(response))))
        budget = context.config.evaluation.fixed_tokens
        with counting(title, opening, enabled=context.ranks.first) as bar:
            found = score(loaded.policy, requests, loaded.pad_id, budget, context.ranks, watch=bar.count)
        if context.ranks.first:
            (folder / "nll.json").write_text(json.dumps([one.mean_nll for one in found]))

    product = context.cache.produce("response_nll", depends_on, make, rerun=context.config.rerun)
    products.append(product)
    values = dict(zip(responding, json.loads((product.folder / "nll.json").read_text()), strict=True))
    return [
        dataclasses.replace(row, figures=row.figures | {RESPONSE_NLL: values[i]}) if i in values else row
        for i, row in enumerate(rows)
    ]


def _is_read(row: RowScore) -> bool:
    return FLUENCY in row.figures and row.role != Role.UNSEEN.value and bool(row.response.strip())


def _asked_rows(context: Context, prepared: LoadedBenchmark) -> dict[tuple[str, str], Row]:
    suites = prepared.selected.suites
    return {(s.name, row.id): row for s in suites for row in evaluated_rows(s, context.config.evaluation)}


def _model(role: str) -> str:
    return "unlearned model" if role == "unlearned" else role
