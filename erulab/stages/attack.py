"""Attacks target, unlearned model and oracle, and returns the rows of attacks.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erulab.attacks.halves import validation_half
from erulab.attacks.judging.attacked_setting import MODELS, AttackedSetting, UnattackedScores
from erulab.attacks.judging.columns import row_without_figures
from erulab.attacks.judging.rows import attack_json_rows
from erulab.attacks.judging.scoring import merge_suites, utility_suite
from erulab.data.rows import Suite
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.stages.attack_jobs import AttackJob, JobRunner
from erulab.stages.attack_plan import AttackPlan, plan_attacks, scored_suites
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.training.loader import ModelRef


def attack(
    context: Context, refs: dict[str, ModelRef], evaluated: dict[str, list[RowScore]] | None
) -> tuple[list[dict[str, Any]], list[Product]]:
    """Runs the attacks and returns the rows of attacks.json: each attack in each setting, by metric.

    Values before and after an attack are of the same rows. Jobs are distributed over the ranks, and models are never
    changed. An attack that cannot run here or that fails gets one row with standing "not_run" that says why.

    Args:
        refs: role -> model, for "target", "unlearned" and "oracle".
        evaluated: role -> row scores without an attack; None if this run did not evaluate.
    """
    planned = plan_attacks(context)
    jobs = _attack_jobs(planned, scored=evaluated is not None)
    done = JobRunner(context, planned, refs).run(jobs)
    benchmark = context.data.selected
    utility = utility_suite(benchmark, context.config.evaluation)
    if evaluated is None:
        plain = {job.model: unattacked_scores(done.traces[job][0].rows, utility) for job in jobs if job.attack is None}
    else:
        plain = {model: unattacked_scores(evaluated[model], utility) for model in MODELS}
    validation = validation_half(benchmark, context.config.seed)
    found = [row_without_figures(name, {}, why) for name, why in planned.refused.items()]
    for index, (name, setting) in enumerate(planned.settings):
        own = [job for job in jobs if job.setting == index]
        failures = dict.fromkeys(done.failures[job] for job in own if job in done.failures)
        if failures:
            found.append(row_without_figures(name, setting, "; ".join(failures)))
            continue
        traces = {model: [done.traces[job] for job in own if job.model == model] for model in MODELS}
        scored = merge_suites(scored_suites(planned, context, name, setting))
        try:
            kind, shared = context.config.attack[name].name, planned.built[name].one_attempt_for_all_models
            margin = context.config.report.margin
            attacked = AttackedSetting(name, kind, setting, scored, utility, traces, margin, shared)
            found += attack_json_rows(attacked, plain, validation, context.unreported_facts)
        except DataError as error:
            found.append(row_without_figures(name, setting, f"not judged: {error}"))
    return found, done.products


def count_attacked(context: Context, refs: dict[str, ModelRef], *, scored: bool) -> tuple[int, int]:
    """Returns how many repeats of attacks on a model the cache has, and how many the run needs.

    Args:
        refs: as for `attack`; without all three models nothing is in the cache.
        scored: whether this run scores its models without an attack.
    """
    planned = plan_attacks(context)
    jobs = _attack_jobs(planned, scored=scored)
    if any(model not in refs for model in MODELS):
        return 0, len(jobs)
    return JobRunner(context, planned, refs).count_made(jobs), len(jobs)


def _attack_jobs(planned: AttackPlan, *, scored: bool) -> list[AttackJob]:
    """Lists every repeat of every setting on every model, and first the models without an attack unless `scored`."""
    jobs = [
        AttackJob(name, index, number, model)
        for index, (name, _) in enumerate(planned.settings)
        for number in range(planned.built[name].repeats)
        for model in MODELS
    ]
    return jobs if scored else [AttackJob(None, -1, 0, model) for model in MODELS] + jobs


def unattacked_scores(rows: Sequence[RowScore], utility: Suite) -> UnattackedScores:
    """Splits a model's scores without an attack into forget rows and the retain rows that tell its utility."""
    ids = {row.id for row in utility.rows}
    return UnattackedScores(
        [row for row in rows if row.suite != utility.name],
        [row for row in rows if row.suite == utility.name and row.id in ids],
    )
