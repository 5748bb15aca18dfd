"""The rows of attacks.json: what attacks brought back, by setting and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erulab.attacks.base import Setting
from erulab.attacks.judging import choosing, open_unlearning
from erulab.attacks.judging.figures import FIGURES, Measured, figures, validity
from erulab.attacks.judging.savings import savings
from erulab.attacks.judging.trace import Tried
from erulab.data.measures import Overlap
from erulab.data.rows import Suite
from erulab.errors import DataError
from erulab.evaluation.evaluate import RowScore
from erulab.evaluation.knowledge import Values

MODELS = ("target", "unlearned", "oracle")
HEADLINE = "log_odds"
OVERLAPS = tuple(overlap.value for overlap in Overlap if overlap is not Overlap.entropy)
# What an attack may bring back, as far as a suite has it; and what tells whether it destroyed the model.
SCORES = ("probability", "rouge", "choice", "accuracy", *OVERLAPS)
UTILITIES = ("choice", "accuracy", "probability", *OVERLAPS)
# Of the attacker of the unlearned model, and of the retain side of the unlearned model.
BUDGET = ("steps", "flops", "seconds")
UTILITY = ("utility", "utility_attacked")

Where = tuple[str, str]  # suite, row id
ByRow = dict[Where, dict[str, float]]


@dataclass(frozen=True)
class Plain:
    """One model without an attack: its forget rows, and the retain rows that tell its utility."""

    rows: Sequence[RowScore]
    utility: Sequence[RowScore]


@dataclass(frozen=True)
class Case:
    """One setting of one attack, on all three models."""

    attack: str  # as the run names it
    kind: str  # as it is registered: relearn_retain is a relearn
    setting: Setting
    suites: Sequence[Suite]  # every suite that some repeat is scored on
    traces: Mapping[str, Sequence[Sequence[Tried]]]  # model -> repeat -> attempts
    alike: bool = True  # one attempt is chosen for all models; else each has its own best


def refused(attack: str, setting: Setting, why: str) -> dict[str, Any]:
    """The row of an attack that has no figures."""
    empty = dict.fromkeys((*FIGURES, *open_unlearning.ATTACKS, *BUDGET, *UTILITY))
    return {
        "attack": attack,
        "setting": setting,
        "metric": HEADLINE,
        "headline": True,
        **empty,
        "valid": False,
        "note": why,
        "n": 0,
        **_of_headline(),
    }


def rows_of(case: Case, plain: Mapping[str, Plain], validation: frozenset[str]) -> list[dict[str, Any]]:
    """One setting's rows: the headline first, the retain suite's utility last.

    Args:
        plain: the models without the attack, on every row it is scored on.
        validation: the facts that choose among an attack's attempts; where there is a choice the others are reported.
    Raises:
        DataError: there is a choice, and no row to make it by or none to report.
    """
    before = {model: _by_row(plain[model].rows) for model in MODELS}
    metrics = _metrics(case, before["target"])
    headline = next(iter(metrics))
    picked = _picked(case, metrics[headline], validation, before)
    kept = {model: [case.traces[model][i][best] for i, best in enumerate(picked[model])] for model in MODELS}
    chooses = any(len(attempts) > 1 for repeats in case.traces.values() for attempts in repeats)
    left_out = validation if chooses else frozenset()
    after = {model: _averaged([_by_row(one.rows, left_out) for one in kept[model]]) for model in MODELS}
    facts = {(row.suite, row.id): row.fact for repeat in case.traces["target"] for row in repeat[0].rows}

    def measured(metric: str, found: Mapping[str, ByRow]) -> tuple[Measured, list[str]]:
        figure, suites = metrics[metric]
        # Rows that all models could read: a given one may have another tokenizer.
        where = [one for one in found["target"] if one[0] in suites and all(one in found[model] for model in MODELS)]
        arrays = [_values(rows[model], where, figure) for rows in (before, found) for model in MODELS]
        return Measured(*arrays), [facts[one] for one in where]  # type: ignore[arg-type]  # attacked ones are there

    figure, utility = _utilities(plain, kept)
    head, clusters = measured(headline, after)
    valid, reason = validity(head, float(utility["target"].mean()), float(utility["attacked_target"].mean()))
    common = {
        "attack": case.attack,
        "setting": case.setting,
        "valid": valid,
        **_spent(kept["unlearned"]),
        "utility": float(utility["unlearned"].mean()),
        "utility_attacked": float(utility["attacked_unlearned"].mean()),
    }
    rows = []
    for metric in metrics:
        values, clusters = measured(metric, after)
        row = figures(values, clusters, score=metric != HEADLINE)
        beside = open_unlearning.robustness(case.kind, values.means, score=metric != HEADLINE)
        own = _of_headline()
        if metric == headline:
            own = _of_headline(
                _chosen(kept) if chooses else {},
                _attempts(case, measured, headline, left_out) if chooses else [],
                _repeats(kept, measured, headline, left_out),
                _savings(case, kept, values, metrics[headline], left_out),
            )
        note = "; ".join(text for text in (reason, row.pop("note"), beside.pop("note")) if text)
        rows.append(
            {
                **common,
                "metric": metric,
                "headline": metric == headline,
                **row,
                **beside,
                **own,
                "note": note,
                "n": len(clusters),
            }
        )
    means = Measured(**utility).means
    note = "; ".join(text for text in (reason, "utility: target and oracle both know these rows") if text)
    none = dict.fromkeys((*FIGURES, *open_unlearning.ATTACKS))
    rows.append(
        {
            **common,
            "metric": figure,
            "headline": False,
            **none,
            **means,
            **_of_headline(),
            "note": note,
            "n": len(utility["target"]),
        }
    )
    return rows


def _of_headline(
    chosen: dict[str, list[Setting]] | None = None,
    attempts: Sequence[dict[str, Any]] = (),
    repeats: Sequence[float | None] = (),
    savings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The columns that only a setting's headline fills."""
    return {"chosen": chosen or {}, "attempts": list(attempts), "repeats": list(repeats), "savings": savings or {}}


def _metrics(case: Case, before: ByRow) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Metric -> (figure, suites): log-odds of all forget rows first, if there are any."""
    scored = [row for repeat in case.traces["target"] for one in repeat for row in one.rows]
    found = {suite.name: _common_figures(suite, scored) for suite in case.suites}
    plain = {figure for row in before.values() for figure in row}
    metrics: dict[str, tuple[str, tuple[str, ...]]] = {}
    known = tuple(name for name, has in found.items() if HEADLINE in has)
    if known:
        metrics[HEADLINE] = (HEADLINE, known)
    for suite in case.suites:
        usual = ("choice",) if any(row.candidates for row in suite.rows) else SCORES
        own = sorted(found[suite.name] - plain - {HEADLINE})  # what only this attack measures
        for figure in (*own, *usual):
            if figure in found[suite.name]:
                metrics[f"{suite.name}/{figure}"] = (figure, (suite.name,))
    if not metrics:
        raise DataError("no row that it is scored on has a figure")
    return metrics


def _common_figures(suite: Suite, scored: Sequence[RowScore]) -> set[str]:
    """The figures that every row of a suite has."""
    figures = [set(row.figures) for row in scored if row.suite == suite.name]
    return set.intersection(*figures) if figures else set()


def _picked(
    case: Case, metric: tuple[str, tuple[str, ...]], validation: frozenset[str], before: Mapping[str, ByRow]
) -> dict[str, list[int]]:
    """model -> the attempt that counts in each repeat."""
    if all(len(attempts) == 1 for repeats in case.traces.values() for attempts in repeats):
        return {model: [0] * len(repeats) for model, repeats in case.traces.items()}
    if not (case.alike and _same_attempts(case)):
        return {
            model: [choosing.for_each(attempts, metric, validation) for attempts in repeats]
            for model, repeats in case.traces.items()
        }
    picked = []
    for repeat in zip(*(case.traces[model] for model in MODELS), strict=True):
        where = [(row.suite, row.id) for row in repeat[0][0].rows if row.suite in metric[1] and row.fact in validation]
        target, oracle = (_values(before[model], where, metric[0]) for model in ("target", "oracle"))
        gap = None if target is None or oracle is None or not where else float(np.mean(target - oracle))
        picked.append(choosing.for_all(dict(zip(MODELS, repeat, strict=True)), metric, validation, gap))
    return {model: picked for model in MODELS}


def _same_attempts(case: Case) -> bool:
    """Whether the same is tried on all models, in the same order in every repeat."""
    lists = [[one.chosen for one in repeat] for repeats in case.traces.values() for repeat in repeats]
    return all(one == lists[0] for one in lists)


def _by_row(rows: Sequence[RowScore], left_out: frozenset[str] = frozenset()) -> ByRow:
    return {(row.suite, row.id): row.figures for row in rows if row.fact not in left_out}


def _averaged(repeats: Sequence[ByRow]) -> ByRow:
    """Each row's figures, averaged over the repeats that it was scored in."""
    found: dict[Where, list[dict[str, float]]] = {}
    for repeat in repeats:
        for where, values in repeat.items():
            found.setdefault(where, []).append(values)
    return {
        where: {name: float(np.mean([one[name] for one in several])) for name in set.intersection(*map(set, several))}
        for where, several in found.items()
    }


def _values(rows: ByRow, where: Sequence[Where], figure: str) -> Values | None:
    """(rows,) a figure; None where it is not measured."""
    found = [rows.get(one, {}).get(figure) for one in where]
    return None if any(value is None for value in found) else np.array(found, dtype=np.float64)


def _utilities(plain: Mapping[str, Plain], kept: Mapping[str, Sequence[Tried]]) -> tuple[str, dict[str, Values]]:
    """The metric that tells utility, and its values on the retain rows before and after."""
    suite = plain["target"].utility[0].suite
    common = set.intersection(*(set(row.figures) for row in plain["target"].utility))
    figure = next(figure for figure in UTILITIES if figure in common)
    before = {model: _by_row(plain[model].utility) for model in MODELS}
    after = {
        model: _averaged([before[model] if one.utility is None else _by_row(one.utility) for one in kept[model]])
        for model in MODELS
    }
    where = list(before["target"])
    return f"{suite}/{figure}", {
        f"{prefix}{model}": np.array([rows[model][one][figure] for one in where])
        for prefix, rows in (("", before), ("attacked_", after))
        for model in MODELS
    }


def _spent(kept: Sequence[Tried]) -> dict[str, float]:
    """The attacker's budget, of one repeat."""
    return {name: float(np.mean([getattr(one, name) for one in kept])) for name in BUDGET}


def _chosen(kept: Mapping[str, Sequence[Tried]]) -> dict[str, list[Setting]]:
    return {model: [one.chosen for one in tried] for model, tried in kept.items()}


def _attempts(case: Case, measured: Any, headline: str, left_out: frozenset[str]) -> list[dict[str, Any]]:
    """What every attempt came to on the reported half, where the same are made on all models."""
    if not _same_attempts(case):
        return []
    found = []
    for i, chosen in enumerate([one.chosen for one in case.traces["target"][0]]):
        tried = {model: [repeat[i] for repeat in case.traces[model]] for model in MODELS}
        after = {model: _averaged([_by_row(one.rows, left_out) for one in tried[model]]) for model in MODELS}
        found.append({"chosen": chosen, **_spent(tried["unlearned"]), **_short(*measured(headline, after))})
    return found


def _repeats(kept: Mapping[str, Sequence[Tried]], measured: Any, headline: str, left_out: frozenset[str]) -> list[Any]:
    """`residual_attacked` of each repeat by itself."""
    count = len(kept["target"])
    if count == 1:
        return []
    alone = [{model: _by_row(kept[model][i].rows, left_out) for model in MODELS} for i in range(count)]
    return [_short(*measured(headline, after))["residual_attacked"] for after in alone]


def _savings(
    case: Case,
    kept: Mapping[str, Sequence[Tried]],
    before: Measured,
    metric: tuple[str, tuple[str, ...]],
    left_out: frozenset[str],
) -> dict[str, Any]:
    """What the unlearned model's learning curve saves against the oracle's, each under what was chosen for it beside
    the step; {} where there is no curve. Levels are in units of the unattacked gap of target and oracle."""
    figure, suites = metric
    plain = before.means
    target, oracle = plain["target"], plain["oracle"]
    one = kept["unlearned"][0]
    retrained = "steps" in one.chosen and one.utility is not None  # a prompt's steps teach no model
    if not retrained or target is None or oracle is None or not target > oracle:
        return {}

    def curve(model: str) -> list[tuple[int, float]]:
        """(steps, level) of one model, from before the first step."""
        repeats = []
        for attempts, best in zip(case.traces[model], kept[model], strict=True):
            chosen = {**best.chosen, "steps": None}
            repeats.append({one.chosen["steps"]: one for one in attempts if {**one.chosen, "steps": None} == chosen})
        levels = [(0, plain[model])]
        for step in sorted(set.intersection(*map(set, repeats))):
            rows = _averaged([_by_row(repeat[step].rows, left_out) for repeat in repeats])
            values = [row[figure] for (suite, _), row in rows.items() if suite in suites]
            levels.append((step, float(np.mean(values))))
        return [(step, (level - oracle) / (target - oracle)) for step, level in levels if level is not None]

    return savings(curve("unlearned"), curve("oracle"))


def _short(values: Measured, clusters: Sequence[str]) -> dict[str, Any]:
    names = ("attacked_target", "attacked_unlearned", "attacked_oracle", "residual_attacked", "low", "high")
    row = figures(values, clusters, score=False)
    return {name: row[name] for name in names}
