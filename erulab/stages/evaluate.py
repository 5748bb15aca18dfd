"""Scores target, unlearned model and oracle on the suites of the data set and of the extra benchmarks."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.attacks.halves import validation_facts
from erulab.data.rows import Benchmark, Suite
from erulab.evaluation.aggregate import against_oracle, aggregate, aggregates
from erulab.evaluation.budget import choose_budget
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.external.vllm_generation import free_memory_share, generate_with_vllm
from erulab.evaluation.intervals import intervals, ratio_interval
from erulab.evaluation.knowledge import RatioEstimate
from erulab.evaluation.knowledge_figures import knowledge_left_figures
from erulab.evaluation.knowledge_ratios import knowledge_left_ratios
from erulab.evaluation.measures import measures
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, evaluated_rows, generates_responses, without_facts
from erulab.evaluation.utility import utility_figure
from erulab.models.loaded import LoadedModel
from erulab.options import Facts, Generator, score_options
from erulab.reporting.progress import counting
from erulab.roles import oracles_among
from erulab.stages.cache import Product
from erulab.stages.context import TUNING_SEED, Context, LoadedBenchmark
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

VERSION = 4  # part of the cache key: a new number scores every model again
KIND = "evaluated"

# Role (target, unlearned, oracle, oracle@2, ...) -> row scores of the data set and of each extra benchmark.
Rows = Mapping[str, Sequence[Sequence[RowScore]]]


def score_model(context: Context, role: str, ref: ModelRef) -> tuple[list[list[RowScore]], list[Product]]:
    """Scores the target, unlearned model or oracle on the data set and on each extra benchmark.

    Scores are cached under the model's key, the content of the rows and the options, never under a path. The model is
    loaded once, and only if some scores are not in the cache.
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
    depends_on = scores_depend_on(context, prepared, ref)

    def make(folder: Path) -> None:
        count = sum(len(evaluated_rows(suite, context.config.evaluation)) for suite in suites)
        what = "unlearned model" if role == "unlearned" else role
        opening = f"scoring the {what} on {count} rows of {prepared.fitted.name}"
        with counting(f"scoring the {what}", opening, enabled=context.ranks.first) as bar:
            loaded = load()
            respond = None
            if context.config.evaluation.generator is Generator.vllm:
                respond = functools.partial(
                    generate_with_vllm,
                    source=ref.path,
                    chat=loaded.chat,
                    tokenizer=context.source.overrides.tokenizer,
                    memory=free_memory_share(context.device),
                )
            refusal = prepared.fitted.refusals[0] if prepared.fitted.refusals else ""
            options, ranks = context.config.evaluation, context.ranks
            budget = choose_budget(loaded, options, ranks)
            rows = evaluate(
                loaded, suites, options, ranks, budget=budget, refusal=refusal, respond=respond, watch=bar.count
            )
        if context.ranks.first:
            # Figures depend on it by rounding only, so it is in no key; whoever compares bits finds it here.
            (folder / "batch_tokens.json").write_text(json.dumps(asdict(budget)))
            lines = [json.dumps(row.to_json(), allow_nan=True) for row in rows]
            (folder / "rows.jsonl").write_text("\n".join(lines))

    product = context.cache.produce(KIND, depends_on, make, rerun=context.config.rerun)
    text = (product.folder / "rows.jsonl").read_text()
    return [RowScore.from_json(json.loads(line)) for line in text.split("\n")], product


def scores_depend_on(context: Context, prepared: LoadedBenchmark, ref: ModelRef) -> dict[str, Any]:
    """Returns all that the scores of a model on one benchmark depend on."""
    # "suites" below holds the content of the suites that the option of that name selects.
    options = score_options(asdict(context.config.evaluation))
    del options["suites"]
    return {
        "stage": "evaluate",
        "version": VERSION,
        "model": ref.key,
        "chat": context.chat.identity(),
        "suites": prepared.identity_of_selected,
        "data": prepared.identity,
        "evaluation": options,
        **measure_code(prepared.selected.suites),
    }


def has_scores(context: Context, ref: ModelRef) -> bool:
    """Tells whether the cache has the scores of a model on every benchmark of the run."""
    parts = [part for part in (context.data, *context.extra_benchmarks) if part.selected.suites]
    return all(context.cache.find(KIND, scores_depend_on(context, part, ref)) is not None for part in parts)


def measure_code(suites: Sequence[Suite]) -> dict[str, dict[str, str]]:
    """Returns the part of a cache key that changes with the code of a user's own measures; {} without any."""
    code = {suite.name: measures.plugin_code(suite.measure, f"suite {suite.name}") for suite in suites}
    own = {name: words for name, words in code.items() if words}
    return {"measures": own} if own else {}


def reported_rows(context: Context, rows: Rows) -> Rows:
    """Returns the rows that figures are computed from: those of the half that `evaluation.facts` names, and with
    `trainer.keep=best` forget and held-out rows only if their facts did not choose the step.

    Args:
        rows: all scores of the models that the run has. Rows of extra benchmarks are all kept.
    """
    left_out, part = context.unreported_facts, context.config.evaluation.facts
    return {
        name: [half_of_others(without_facts(scored[0], left_out), part), *scored[1:]] for name, scored in rows.items()
    }


def half_of_others(rows: Sequence[RowScore], part: Facts) -> Sequence[RowScore]:
    """Returns the rows without those of the other half of the facts, where nothing is to be forgotten.

    The facts of each role are split by themselves, with the draw that splits the facts to forget.
    """
    if part is Facts.all:
        return rows
    facts: dict[str, set[str]] = {}
    for row in rows:
        facts.setdefault(row.role, set()).add(row.fact)
    forgotten = {role.value for role in FORGET_ROLES}  # their rows have been split already
    # A single fact stays on both sides: a suite without rows would have no figure.
    split = {role: own for role, own in facts.items() if role not in forgotten and len(own) > 1}
    halves = {role: validation_facts(own, TUNING_SEED) for role, own in split.items()}
    wanted = part is Facts.validation
    return [row for row in rows if row.role not in halves or (row.fact in halves[row.role]) == wanted]


def scores(context: Context, rows: Rows) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Returns the contents of scores.json, flat figures of each model, and of intervals.json, their 95 % intervals.

    Figures that need the oracle are left out without one. The figures of an extra benchmark have its name in front.

    Args:
        rows: the result of `reported_rows`.
    """
    result: dict[str, dict[str, Any]] = {role: {} for role in rows}
    bounds: dict[str, dict[str, Any]] = {role: {} for role in rows}
    parts = (context.data, *context.extra_benchmarks)
    measured_on: dict[str, int] = {}  # figure of scores.json -> index of its benchmark
    for i, part in enumerate(parts):
        own = {role: scored[i] for role, scored in rows.items()}
        figures = {role: _figures(role, own, part.fitted) for role in own}
        found = intervals(figures, own, part.fitted)
        for role, values in figures.items():
            names = _names_in_scores(values, part.fitted.name, result[role]) if i else {name: name for name in values}
            result[role] |= {names[name]: value for name, value in values.items()}
            # Only figures that keep their own name: these alone can be utility.
            measured_on |= {name: i for name in values if names[name] == name}
            bounds[role] |= {names[name]: interval for name, interval in found[role].items()}
    of_data_set = {role: scored[0] for role, scored in rows.items()}
    for role, more in knowledge_left_figures(of_data_set).items():
        result[role] |= more
    if {"target", "unlearned"} <= rows.keys():
        result["unlearned"] |= knowledge_left_ratios(of_data_set)
        figure = utility_figure(result["target"], result["unlearned"])
        if figure is not None:
            i = measured_on[figure]  # WMDP's is of an extra benchmark, MMLU
            share = ratio_interval(rows["unlearned"][i], rows["target"][i], figure, parts[i].fitted)
            result["unlearned"] |= _utility_kept(share)
    return result, bounds


def _figures(role: str, rows: Mapping[str, Sequence[RowScore]], benchmark: Benchmark) -> dict[str, float]:
    figures = aggregate(rows[role], benchmark)
    figures |= against_oracle(rows[role], rows.get("oracle"), benchmark, rows.get("target"))
    return figures | aggregates(rows[role], figures, benchmark)


def _names_in_scores(figures: Collection[str], benchmark: str, taken: Collection[str]) -> dict[str, str]:
    """Maps figures of an extra benchmark to their names in scores.json.

    Figures that already begin with the benchmark's name (mmlu/accuracy) do not get it twice, unless the data set has a
    figure of that name; others do (tofu/forget/rouge).
    """
    has_name = all(figure.startswith(benchmark) and figure not in taken for figure in figures)
    return {figure: figure if has_name else f"{benchmark}/{figure}" for figure in figures}


def _utility_kept(share: RatioEstimate) -> dict[str, float | None]:
    """Returns the share of the target's utility that is kept, with its intervals, as figures of scores.json."""
    ends = {end: getattr(share, end) for end in ("low", "high", "low90", "high90")}
    return {"utility_kept": share.value, **{f"utility_kept_{end}": value for end, value in ends.items()}}


def samples(rows: Mapping[str, Sequence[list[RowScore]]], context: Context) -> list[dict[str, str]]:
    """Returns the content of samples.json: the first greedy responses of each suite under every model.

    Of several oracles only the first is shown.
    """
    count = context.config.evaluation.samples
    left_out = oracles_among(rows)[1:]
    by_model = {
        model: {(r.suite, r.id): r.response for r in scored[0]}
        for model, scored in rows.items()
        if model not in left_out
    }
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
        for row in (suite.rows[:count] if generates_responses(suite, context.config.evaluation) else ())
        if row.prompt
    ]
