"""Intervals of the figures of scores.json: a paired bootstrap over facts, for every figure that is made of rows.

The facts of each suite are resampled, all rows of a fact together, and the figures are computed anew from the resampled
rows. All models share the resamples, so that comparisons of models are paired.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from erulab.data.measures import Pooled, Separation
from erulab.data.rows import Benchmark
from erulab.evaluation import membership, open_unlearning
from erulab.evaluation.aggregate import MEMBERSHIP, aggregate, row_figures, utility_parts
from erulab.evaluation.figures import comparisons
from erulab.evaluation.figures.combining import combined_harmonic_mean
from erulab.evaluation.figures.groups import Entry, forget_components, group_entries
from erulab.evaluation.figures.resampling import (
    LEVELS,
    FactResamples,
    Samples,
    Values,
    is_constant,
    range_end,
    resampled_mean,
    samples_at_end,
    wilson_margin,
)
from erulab.evaluation.knowledge import RatioEstimate
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES

# Figures of suites that are shares, in [0, 1], beside those that a measure names as its knowledge.
SHARES = {
    "probability",
    "choice",
    "accuracy",
    "accuracy_norm",
    "truth_ratio",
    "truth_ratio_arithmetic",
    "extraction_strength",
    "exact_memorization",
    "exact_match",
    "rank_auc",
    "paraphrase_probability",
    "truth_ratio_share",
    "refusal",
    "distinct_ngrams",
    "longest_repetition",
    "rouge",
    "rwku_recall",
    "rouge_f1",
    "judged",
}
COMPONENTS = "aggregate components/"  # name of the forget rows' group, whose figures are in no file


def intervals(
    figures: Mapping[str, Mapping[str, float]], rows: Mapping[str, Sequence[RowScore]], benchmark: Benchmark
) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns the 95 % interval of each figure of each model.

    Forget quality has none, because it is a p-value. Nor have counts and the summaries of plugins.

    Args:
        figures: role ("target", "unlearned", "oracle", ...) -> figure -> value, of one benchmark.
        rows: role -> the row scores that the figures are made of.
    Returns:
        role -> figure -> (low, high).
    """
    resampling = _Resampling(benchmark)
    samples = {role: resampling.samples(own, role) for role, own in rows.items()}
    result = {}
    for role, values in figures.items():
        compared = resampling.comparisons(samples[role], samples.get("target"), samples.get("oracle"))
        found = samples[role] | compared
        known = {name: sample.interval(values[name]) for name, sample in found.items() if name in values}
        result[role] = {name: interval for name, interval in known.items() if interval is not None}
    return result


def ratio_interval(
    model_rows: Sequence[RowScore], target_rows: Sequence[RowScore], figure: str, benchmark: Benchmark
) -> RatioEstimate:
    """Returns a figure of one model as a share of the target's, with its paired bootstrap intervals.

    If both models have the same value on every row, resampling always gives the same share. Of n facts on which they
    agree, Wilson's interval lets up to `z^2 / (n + z^2)` differ: a share of the range from 0 to 1 by which the model's
    figure may then differ.

    Args:
        model_rows, target_rows: all scores of the benchmark's rows under the two models.
        figure: its name in scores.json, such as `retain/probability` or `model_utility`; none of membership inference.
    """
    resampling = _Resampling(benchmark)
    model = resampling.samples(model_rows, "model", aucs=False).get(figure)
    target = resampling.samples(target_rows, "target", aucs=False).get(figure)
    if model is None or target is None:
        return RatioEstimate.undefined(f"{figure} was not scored on both models")
    before, after = (aggregate(rows, benchmark)[figure] for rows in (target_rows, model_rows))
    if before <= 0:
        return RatioEstimate.undefined(f"the target's {figure} is {before:.3g}")
    ratio = after / before
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(target.values > 0, model.values / target.values, np.nan)
    samples = Samples(values, min(model.facts, target.facts))
    if np.isfinite(values).all() and is_constant(values) and samples.facts > 1:
        margins = {level: wilson_margin(samples.facts, level) / before for level in LEVELS}
        bounds = {level: (max(0.0, ratio - margin), ratio + margin) for level, margin in margins.items()}
        return RatioEstimate(ratio, *bounds["95"], *bounds["90"])
    found95, found90 = samples.interval(ratio, "95"), samples.interval(ratio, "90")
    if found95 is None or found90 is None:
        return RatioEstimate(ratio, None, None, None, None, f"too few facts for an interval ({samples.facts})")
    return RatioEstimate(ratio, *found95, *found90)


@dataclass(frozen=True)
class _Part:
    """A suite's figure in each resample: sums over the drawn rows, and how many of them have it.

    end: 0.0 or 1.0 if the figure is a share and all rows have that value.
    """

    sums: Values
    counts: Values
    facts: frozenset[str]
    end: float | None


class _Resampling:
    """The resamples of a benchmark's suites, drawn when a model first needs them."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._drawn: dict[tuple[str, ...], FactResamples] = {}

    def samples(self, rows: Sequence[RowScore], role: str, aucs: bool = True) -> dict[str, Samples]:
        """Returns the figures of one model in each resample; those that `aggregate` computes from the same rows.

        Args:
            role: names the model, so that its shares at an end of the range vary independently of another model's.
            aucs: also those of membership inference, which take most of the time.
        """
        groups = {
            **group_entries(rows, self._benchmark),
            COMPONENTS.removesuffix("/"): forget_components(rows),
        }
        by_suite = {suite.name: [row for row in rows if row.suite == suite.name] for suite in self._benchmark.suites}
        parts = {
            suite.name: self._parts(
                [Entry(row.fact, row_figures(row, suite)) for row in by_suite[suite.name]],
                SHARES | set(suite.measure.knowledge),
            )
            for suite in self._benchmark.suites
        }
        result = {
            name: _mean_samples([part], role, name) for figures in parts.values() for name, part in figures.items()
        }
        for group, entries in groups.items():
            for name, part in self._parts(entries, SHARES).items():
                result[f"{group}/{name}"] = _mean_samples([part], role, f"{group}/{name}")
        forget = [suite.name for suite in self._benchmark.suites if suite.role in FORGET_ROLES]
        known = [parts[name][f"{name}/log_odds"] for name in forget if f"{name}/log_odds" in parts.get(name, {})]
        if known:
            result["knowledge"] = _mean_samples(known, role, "knowledge")
        compat = {f"{open_unlearning.PREFIX}/model_utility": open_unlearning.utility_parts(self._benchmark.suites)}
        for utility, names in (utility_parts(self._benchmark) | compat).items():
            if names and all(name in result for name in names):
                result[utility] = _combined([result[name] for name in names])
        for summary in self._benchmark.summaries:
            if isinstance(summary, Pooled):
                result |= self._pooled(summary, parts, role)
            if isinstance(summary, Separation) and aucs:
                result |= self._aucs(summary, by_suite, role)
        return result

    def comparisons(
        self, own: Mapping[str, Samples], target: Mapping[str, Samples] | None, oracle: Mapping[str, Samples] | None
    ) -> dict[str, Samples]:
        """Returns PrivLeak, sMIA and open-unlearning's aggregates in each resample.

        Args:
            own, target, oracle: the results of `samples` of the judged model, the target and the oracle.
        """
        values = {name: sample.values for name, sample in own.items()}
        before, retrained = (
            None if model is None else {name: sample.values for name, sample in model.items()}
            for model in (target, oracle)
        )
        summaries = self._benchmark.summaries
        found = comparisons.membership_comparisons(values, before, retrained, summaries)
        components = {name.removeprefix(COMPONENTS): v for name, v in values.items() if name.startswith(COMPONENTS)}
        found |= comparisons.aggregates(components, values | found, summaries)
        # All of these are about the forget rows.
        known = [sample.facts for name, sample in own.items() if "/auc_" in name or name.startswith(COMPONENTS)]
        facts = min(known, default=0)
        return {name: Samples(value, facts) for name, value in found.items()}

    def _of(self, facts: Sequence[str]) -> FactResamples:
        key = tuple(facts)
        if key not in self._drawn:
            self._drawn[key] = FactResamples(facts)
        return self._drawn[key]

    def _parts(self, entries: Sequence[Entry], shares: Collection[str]) -> dict[str, _Part]:
        """Returns the figures of a suite's rows, or of a group's entries, in each resample.

        Args:
            shares: names of figures in [0, 1], without the suite's.
        """
        names = list(dict.fromkeys(name for entry in entries for name in entry.figures))
        if not names:
            return {}
        values = np.array([[entry.figures.get(name, np.nan) for name in names] for entry in entries])
        sums, counts = self._of([entry.fact for entry in entries]).resampled_sums(values)
        parts = {}
        for i, name in enumerate(names):
            having = ~np.isnan(values[:, i])
            facts = frozenset(entry.fact for entry, has in zip(entries, having, strict=True) if has)
            end = range_end(values[having, i].tolist()) if name.rpartition("/")[2] in shares else None
            parts[name] = _Part(sums[:, i], counts[:, i], facts, end)
        return parts

    def _pooled(self, summary: Pooled, parts: Mapping[str, Mapping[str, _Part]], role: str) -> dict[str, Samples]:
        if not all(parts.get(suite) for suite in summary.suites):
            return {}
        names = [(suite, f"{suite}/{summary.figure}") for suite in summary.suites]
        found = [parts[suite][name] for suite, name in names if name in parts[suite]]
        name = f"{summary.name}/{summary.figure}"
        return {name: _mean_samples(found, role, name)} if found else {}

    def _aucs(self, summary: Separation, by_suite: Mapping[str, Sequence[RowScore]], role: str) -> dict[str, Samples]:
        result = {}
        for score in MEMBERSHIP:
            sets = [
                [row for row in by_suite.get(suite, ()) if score in row.figures]
                for suite in (summary.forget, summary.holdout)
            ]
            if not all(sets):
                continue
            forget, holdout = (np.array([row.figures[score] for row in rows]) for rows in sets)
            drawn, other = (self._of([row.fact for row in rows]) for rows in sets)
            facts = min(len(drawn.facts), len(other.facts))
            name = f"{summary.name}/auc_{score}"
            end = range_end([membership.auc(forget, holdout)])
            if end is not None:
                result[name] = samples_at_end(end, facts, role, name)
            else:
                wins = membership.pairwise_wins(forget, holdout)
                result[name] = Samples(drawn.resampled_pair_mean(wins, other), facts)
        return result


def _mean_samples(parts: Sequence[_Part], role: str, name: str) -> Samples:
    facts = frozenset[str]().union(*(part.facts for part in parts))
    end = parts[0].end
    if end is not None and all(part.end == end for part in parts):
        return samples_at_end(end, len(facts), role, name)
    sums, counts = (np.sum([getattr(part, field) for part in parts], axis=0) for field in ("sums", "counts"))
    return Samples(resampled_mean(sums, counts), len(facts))


def _combined(components: Sequence[Samples]) -> Samples:
    values = combined_harmonic_mean([component.values for component in components])
    return Samples(values, min(component.facts for component in components))
