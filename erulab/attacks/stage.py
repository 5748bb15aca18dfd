"""Runs attacks on copies of the three models and tells what they brought back."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from erulab.attacks.base import Attack, Lab
from erulab.attacks.figures import FIGURES, Measured, figures, validity
from erulab.data.measures import Generated
from erulab.data.rows import Benchmark, Role, Suite
from erulab.errors import DataError, ErulabError
from erulab.evaluation.evaluate import RowScore, evaluate
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks

log = logging.getLogger(__name__)

MODELS = ("target", "unlearned", "oracle")
HEADLINE = "log_odds"
# Enough retain rows to see a destroyed model; teacher-forced only.
UTILITY_ROWS = 60
# Responses are generated only where log-odds of values are not to be had, and for few rows: it takes most of the time.
GENERATED_ROWS = 40


@dataclass(frozen=True)
class _Result:
    """One model's row scores under one attack setting, or why there are none."""

    rows: list[RowScore]
    seconds: float
    failure: str = ""


def run_attacks(
    attacks: Mapping[str, Attack], models: Mapping[str, LoadedModel], benchmark: Benchmark, lab: Lab,
    evaluation: EvaluationOptions, ranks: Ranks, evaluated: Mapping[str, list[RowScore]] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """attacks.json's rows: each attack in each setting, by metric; unattacked values are of the same rows.

    Jobs (setting x model) are dealt over the ranks; models are never changed. An attack that fails becomes a row with
    the reason, and is not valid.

    Args:
        evaluated: the models' row scores without an attack, where they are known already.
    Raises:
        DataError: a setting cannot be run on this benchmark at all.
        NumericFault: the attacker's training diverged.
    """
    utility = _utility(benchmark)
    settings = [(name, setting) for name, attack in attacks.items() for setting in attack.settings(benchmark, lab.seed)]
    suites = [(*attacks[name].scored(setting, benchmark, lab.seed), utility) for name, setting in settings]
    # None stands for no attack: on every row that some setting is scored on.
    everything = _union(suites)
    generated = _generated(everything, evaluation)
    unattacked = (None,) if evaluated is None else ()
    jobs = [(index, model) for index in (*unattacked, *range(len(settings))) for model in MODELS]

    def run(index: int | None, model: str) -> _Result:
        if index is None:
            return _Result(_score(models[model], everything, generated, evaluation), 0.0)
        name, setting = settings[index]
        started = time.perf_counter()
        try:
            attacked = attacks[name].apply(models[model].copy(), setting, lab)
            rows = _score(attacked, suites[index], generated, evaluation)
        except ErulabError:
            raise
        except Exception as fault:
            log.warning("attack %s %s on the %s failed: %s", name, setting, model, traceback.format_exc())
            failure = f"failed on the {model}: {type(fault).__name__}: {fault}"
            return _Result([], time.perf_counter() - started, failure)
        return _Result(rows, time.perf_counter() - started)

    done = dict(zip(jobs, ranks.join([run(*job) for job in ranks.mine(jobs)]), strict=True))
    plain = {model: done[None, model].rows for model in MODELS} if evaluated is None else evaluated
    rows: list[dict[str, Any]] = []
    for index, (name, setting) in enumerate(settings):
        attacked = {model: done[index, model] for model in MODELS}
        common = {"attack": name, "setting": setting, "seconds": sum(result.seconds for result in attacked.values())}
        rows.extend({**common, **row} for row in _rows(suites[index], plain, attacked))
    return rows


def _rows(
    suites: Sequence[Suite], plain: Mapping[str, list[RowScore]], attacked: Mapping[str, _Result]
) -> list[dict[str, Any]]:
    """One setting's rows, by metric."""
    failures = "; ".join(result.failure for result in attacked.values() if result.failure)
    if failures:
        return [{"metric": HEADLINE, **dict.fromkeys(FIGURES), "valid": False, "note": failures, "n": 0}]
    after = {model: result.rows for model, result in attacked.items()}
    metrics = _metrics(suites, after["target"])
    measured = {metric: _measured(*where, plain, after) for metric, where in metrics.items()}
    (headline, _), *_, (utility, _) = measured.values()
    valid, reason = validity(headline, float(utility.target.mean()), float(utility.attacked_target.mean()))
    rows = []
    row: dict[str, Any]
    for metric, (values, clusters) in measured.items():
        if values is utility:
            row = {**dict.fromkeys(FIGURES), **values.means, "note": "utility: target and oracle both know these rows"}
        else:
            row = figures(values, clusters, score=metric != HEADLINE)
        note = "; ".join(text for text in (reason, row["note"]) if text)
        rows.append({"metric": metric, **row, "valid": valid, "note": note, "n": len(clusters)})
    return rows


def _metrics(suites: Sequence[Suite], scored: Sequence[RowScore]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Metric -> (figure, suites): log-odds of all forget rows first, the retain suite's utility last."""
    found = {suite.name: _common_figures(suite, scored) for suite in suites}
    *forget, utility = (suite for suite in suites if found[suite.name])
    metrics: dict[str, tuple[str, tuple[str, ...]]] = {}
    known = tuple(suite.name for suite in forget if HEADLINE in found[suite.name])
    if known:
        metrics[HEADLINE] = (HEADLINE, known)
    for suite in forget:
        has_values = any(row.candidates for row in suite.rows)
        for figure in ("choice",) if has_values else ("probability", "rouge", "choice"):
            if figure in found[suite.name]:
                metrics[f"{suite.name}/{figure}"] = (figure, (suite.name,))
    figure = "choice" if "choice" in found[utility.name] else "probability"
    return metrics | {f"{utility.name}/{figure}": (figure, (utility.name,))}


def _common_figures(suite: Suite, scored: Sequence[RowScore]) -> set[str]:
    """The figures that every row of a suite has."""
    figures = [set(row.figures) for row in scored if row.suite == suite.name]
    return set.intersection(*figures) if figures else set()


def _measured(
    figure: str, suites: tuple[str, ...], plain: Mapping[str, list[RowScore]], attacked: Mapping[str, list[RowScore]]
) -> tuple[Measured, list[str]]:
    """The figure of all six models on the rows the attack is scored on, and the rows' facts."""
    scored = [row for row in attacked["target"] if row.suite in suites]

    def values(rows: list[RowScore]) -> np.ndarray[Any, np.dtype[np.float64]]:
        by_row = {(row.suite, row.id): row.figures[figure] for row in rows if row.suite in suites}
        return np.array([by_row[row.suite, row.id] for row in scored])

    arrays = [values(rows[model]) for rows in (plain, attacked) for model in MODELS]
    return Measured(*arrays), [row.fact for row in scored]


def _score(
    loaded: LoadedModel, suites: Sequence[Suite], generated: set[str], evaluation: EvaluationOptions
) -> list[RowScore]:
    rows: list[RowScore] = []
    for suite in suites:
        options = replace(evaluation, generate=suite.name in generated)
        rows += evaluate(loaded, (suite,), options, Ranks(), headline=True)
    return rows


def _generated(suites: Sequence[Suite], evaluation: EvaluationOptions) -> set[str]:
    """Names of the suites whose responses are generated."""
    return {
        suite.name for suite in suites
        if evaluation.generate and suite.role is Role.FORGET and len(suite.rows) <= GENERATED_ROWS
        and not any(row.candidates for row in suite.rows)
    }  # fmt: skip


def _union(scored: Sequence[Sequence[Suite]]) -> list[Suite]:
    """Each suite with every row that one of the settings is scored on."""
    union: dict[str, Suite] = {}
    for suites in scored:
        for suite in suites:
            seen = union.get(suite.name, replace(suite, rows=()))
            union[suite.name] = replace(suite, rows=tuple(dict.fromkeys((*seen.rows, *suite.rows))))
    return list(union.values())


def _utility(benchmark: Benchmark) -> Suite:
    """The retain rows that tell whether an attack destroyed the model."""
    # Without generating: attacks are many.
    kept = [suite for suite in benchmark.suites
            if suite.role is Role.RETAIN and not isinstance(suite.measure, Generated)]  # fmt: skip
    if not kept:
        raise DataError(
            "attacks are judged by what they leave of a retain suite that is scored without generating, and the data "
            "set has none; type attack=none"
        )
    # A suite of Model Utility where there is one.
    suite = next((suite for suite in kept if suite.in_utility), kept[0])
    return replace(suite, rows=suite.rows[:UTILITY_ROWS])
