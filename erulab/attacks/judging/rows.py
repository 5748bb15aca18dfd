"""The rows of attacks.json: what attacks brought back, by setting and metric."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erulab.attacks.judging import choosing, open_unlearning
from erulab.attacks.judging.attacked_setting import MODELS, AttackedSetting, UnattackedScores
from erulab.attacks.judging.columns import BUDGET, COUNTS, NOT_RUN, NOT_VALID, UNDEFINED, headline_columns
from erulab.attacks.judging.figures import FIGURES, ModelValues, attack_figures, why_not_valid, widened
from erulab.attacks.judging.left_alone import left_alone_by, why_not_shown
from erulab.attacks.judging.metrics import HEADLINE, setting_metrics, utility_figure
from erulab.attacks.judging.row_figures import FiguresByRow, average_repeats, figure_values, figures_by_row
from erulab.attacks.judging.savings import savings
from erulab.attacks.judging.trace import AttemptResult
from erulab.attacks.weights.left_alone import MOST, left_alone_words
from erulab.evaluation.knowledge import Values


def attack_json_rows(
    attacked: AttackedSetting,
    plain: Mapping[str, UnattackedScores],
    validation: frozenset[str],
    unreported: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Returns the rows of one setting: the headline first, the utility on the retain suite last.

    Args:
        plain: model -> its scores without the attack, on every row that the setting is scored on.
        validation: the facts that choose among an attack's attempts. If there is a choice, only other facts are
            reported.
        unreported: facts that are never reported, because the unlearned model was chosen by them.
    Raises:
        DataError: there is a choice, and no row to make it by or none to report; or no row has a figure.
    """
    return _SettingRows(attacked, plain, validation, unreported).rows()


class _SettingRows:
    """Computes the rows of one setting from the chosen attempts, and the values before and after them."""

    def __init__(
        self,
        attacked: AttackedSetting,
        plain: Mapping[str, UnattackedScores],
        validation: frozenset[str],
        unreported: frozenset[str],
    ) -> None:
        self._attacked, self._plain = attacked, plain
        self._before = {model: figures_by_row(plain[model].rows) for model in MODELS}
        scored = [row for repeat in attacked.results["target"] for one in repeat for row in one.rows]
        self._metrics = setting_metrics(attacked.suites, scored, self._before["target"])
        self._headline = next(iter(self._metrics))
        attempts = [own for repeats in attacked.results.values() for own in repeats]
        self._same_attempts = all(
            [one.chosen for one in own] == [one.chosen for one in attempts[0]] for own in attempts
        )
        self._chooses = any(len(own) > 1 for own in attempts)
        self._left_out = unreported | (validation if self._chooses else frozenset())
        indices = self._chosen_indices(validation)
        self._chosen = {
            model: [attacked.results[model][i][best] for i, best in enumerate(indices[model])] for model in MODELS
        }
        self._after = {model: self._averaged(self._chosen[model]) for model in MODELS}
        self._repeat_values = functools.cache(self._every_repeat)  # of a metric, after bootstraps
        self._facts = {(row.suite, row.id): row.fact for repeat in attacked.results["target"] for row in repeat[0].rows}

    def rows(self) -> list[dict[str, Any]]:
        figure, utility = self._utility_values()
        headline, facts = self._values(self._headline, self._after)
        kept = float(utility["target"].mean()), float(utility["attacked_target"].mean())
        invalid = why_not_valid(headline, facts, *kept)
        left = left_alone_by(self._chosen)
        if not invalid and sum(left.values()) > MOST:
            invalid = why_not_shown(left, self._figures(self._headline), self._attacked.margin)
        common = {
            "attack": self._attacked.attack,
            "setting": self._attacked.setting,
            "valid": not invalid,
            **_mean_budget(self._chosen["unlearned"]),
            "utility": float(utility["unlearned"].mean()),
            "utility_attacked": float(utility["attacked_unlearned"].mean()),
        }
        rows = [{**common, **self._metric_columns(metric, invalid)} for metric in self._metrics]
        no_figures = dict.fromkeys((*FIGURES, *open_unlearning.ATTACKS))
        rows.append(
            {
                **common,
                "metric": figure,
                "headline": False,
                **no_figures,
                **ModelValues(**utility).means,
                **headline_columns(),
                "standing": None,
                "reason": None,
                "note": "utility: target and oracle both know these rows",
                "facts": None,
                "n": len(utility["target"]),
            }
        )
        return rows

    def _chosen_indices(self, validation: frozenset[str]) -> dict[str, list[int]]:
        """Returns, for each model, the index of the chosen attempt in each repeat."""
        results, metric = self._attacked.results, self._metrics[self._headline]
        if not self._chooses:
            return {model: [0] * len(repeats) for model, repeats in results.items()}
        if not (self._attacked.one_attempt_for_all_models and self._same_attempts):
            return {
                model: [choosing.best_for_each_model(attempts, metric, validation) for attempts in repeats]
                for model, repeats in results.items()
            }
        indices = []
        for repeat in zip(*(results[model] for model in MODELS), strict=True):
            keys = [
                (row.suite, row.id)
                for row in repeat[0][0].rows
                if row.suite in metric.suites and row.fact in validation
            ]
            target, oracle = (figure_values(self._before[model], keys, metric.figure) for model in ("target", "oracle"))
            gap = None if target is None or oracle is None or not keys else float(np.mean(target - oracle))
            attempts = dict(zip(MODELS, repeat, strict=True))
            indices.append(choosing.best_for_all_models(attempts, metric, validation, gap))
        return {model: indices for model in MODELS}

    def _averaged(self, attempts: Sequence[AttemptResult]) -> FiguresByRow:
        """Averages the reported rows of one attempt per repeat."""
        return average_repeats([figures_by_row(one.rows, self._left_out) for one in attempts])

    def _values(self, metric: str, after: Mapping[str, FiguresByRow]) -> tuple[ModelValues, list[str]]:
        """Returns a metric's values before and after, and the fact of each row."""
        figure, suites = self._metrics[metric].figure, self._metrics[metric].suites
        # Only rows that all models could read: a given model may have another tokenizer.
        keys = [key for key in after["target"] if key[0] in suites and all(key in after[model] for model in MODELS)]
        arrays = [figure_values(rows[model], keys, figure) for rows in (self._before, after) for model in MODELS]
        # The values after the attack are never None: a metric is a figure that all attacked rows have.
        return ModelValues(*arrays), [self._facts[key] for key in keys]  # type: ignore[arg-type]

    def _metric_columns(self, metric: str, invalid: str) -> dict[str, Any]:
        """Returns the columns in which the metrics of the setting differ.

        Args:
            invalid: why the attack does not count, or "".
        """
        values, clusters = self._values(metric, self._after)
        score, headline = metric != HEADLINE, metric == self._headline
        repeats = self._repeat_values(metric)
        figures = self._figures(metric)
        compat = open_unlearning.open_unlearning_columns(self._attacked.kind, values.means, score=score)
        undefined = figures.pop("reason")
        standing, reason = COUNTS, None
        if not clusters:
            standing, reason = NOT_RUN, "no row that it is scored on can be read by all three models"
        elif invalid:
            standing, reason = NOT_VALID, invalid
        elif undefined:
            standing, reason = UNDEFINED, undefined
        remarks = self._remarks(invalid) if headline else ()
        note = "; ".join(text for text in (*remarks, figures.pop("note"), compat.pop("note")) if text)
        return {
            "metric": metric,
            "headline": headline,
            **figures,
            **compat,
            **(self._own_headline_columns(values, repeats) if headline else headline_columns()),
            "standing": standing,
            "reason": reason,
            "note": note,
            "facts": len(set(clusters)),
            "n": len(clusters),
        }

    def _figures(self, metric: str) -> dict[str, Any]:
        """Returns what `attack_figures` does, with intervals that know of the repeats."""
        figures = attack_figures(*self._values(metric, self._after), score=metric != HEADLINE)
        return figures | widened(figures, self._repeat_values(metric))

    def _remarks(self, invalid: str) -> list[str]:
        """Returns what is said of the headline besides `invalid`: on the chosen attempts and what they left alone."""
        left = left_alone_by(self._chosen)
        told = [one.remark for one in self._chosen["unlearned"]] + [left_alone_words(left)] * bool(left)
        return [text for text in dict.fromkeys(told) if not invalid.startswith(text)]

    def _own_headline_columns(self, values: ModelValues, repeats: Sequence[float | None]) -> dict[str, Any]:
        """Returns the columns that only a setting's headline fills.

        Args:
            values: of the headline metric.
            repeats: knowledge left after each repeat alone.
        """
        chosen = {model: [one.chosen for one in own] for model, own in self._chosen.items()}
        return headline_columns(
            chosen if self._chooses else {},
            self._every_attempt() if self._chooses and self._same_attempts else [],
            repeats,
            self._savings(values),
        )

    def _every_attempt(self) -> list[dict[str, Any]]:
        """Returns the budget and the headline figures of every attempt on the reported facts."""
        found = []
        for i, first in enumerate(self._attacked.results["target"][0]):
            attempt = {model: [repeat[i] for repeat in self._attacked.results[model]] for model in MODELS}
            after = {model: self._averaged(attempt[model]) for model in MODELS}
            budget = _mean_budget(attempt["unlearned"])
            found.append({"chosen": first.chosen, **budget, **self._headline_figures(after)})
        return found

    def _every_repeat(self, metric: str) -> list[float | None]:
        """Returns a metric's `knowledge_left_attacked` of each repeat alone; [] if there is only one repeat."""
        count = len(self._chosen["target"])
        if count == 1:
            return []
        repeats = [
            {model: figures_by_row(self._chosen[model][i].rows, self._left_out) for model in MODELS}
            for i in range(count)
        ]
        own = [attack_figures(*self._values(metric, after), score=False) for after in repeats]
        return [figures["knowledge_left_attacked"] for figures in own]

    def _headline_figures(self, after: Mapping[str, FiguresByRow]) -> dict[str, Any]:
        names = ("attacked_target", "attacked_unlearned", "attacked_oracle", "knowledge_left_attacked", "low", "high")
        figures = attack_figures(*self._values(self._headline, after), score=False)
        return {name: figures[name] for name in names}

    def _savings(self, values: ModelValues) -> dict[str, Any]:
        """Returns what the unlearned model's learning curve saves against the oracle's; {} if there is no curve."""
        plain = values.means
        target, oracle = plain["target"], plain["oracle"]
        chosen = self._chosen["unlearned"][0]
        retrained = "steps" in chosen.chosen and chosen.utility is not None  # steps of a prompt search train no model
        if not retrained or target is None or oracle is None or not target > oracle:
            return {}
        curves = {}
        for model in ("unlearned", "oracle"):
            levels = [(0, plain[model]), *self._learning_curve(model)]
            # In units of the gap of target and oracle without the attack.
            curves[model] = [
                (step, (level - oracle) / (target - oracle)) for step, level in levels if level is not None
            ]
        return savings(curves["unlearned"], curves["oracle"])

    def _learning_curve(self, model: str) -> list[tuple[int, float]]:
        """Returns (steps, mean of the headline figure) of the chosen attempt's settings other than steps."""
        metric = self._metrics[self._headline]
        repeats = []
        for attempts, best in zip(self._attacked.results[model], self._chosen[model], strict=True):
            chosen = {**best.chosen, "steps": None}
            repeats.append({one.chosen["steps"]: one for one in attempts if {**one.chosen, "steps": None} == chosen})
        curve = []
        for step in sorted(set.intersection(*map(set, repeats))):
            rows = self._averaged([repeat[step] for repeat in repeats])
            values = [row[metric.figure] for (suite, _), row in rows.items() if suite in metric.suites]
            curve.append((step, float(np.mean(values))))
        return curve

    def _utility_values(self) -> tuple[str, dict[str, Values]]:
        """Returns the metric that tells utility, and its values on the retain rows before and after."""
        plain, suite = self._plain, self._attacked.utility
        figure = utility_figure(suite, plain["target"].utility)
        before = {model: figures_by_row(plain[model].utility) for model in MODELS}
        after = {
            model: average_repeats(
                [before[model] if one.utility is None else figures_by_row(one.utility) for one in self._chosen[model]]
            )
            for model in MODELS
        }
        keys = list(before["target"])
        return f"{suite.name}/{figure}", {
            f"{prefix}{model}": np.array([rows[model][key][figure] for key in keys])
            for prefix, rows in (("", before), ("attacked_", after))
            for model in MODELS
        }


def _mean_budget(attempts: Sequence[AttemptResult]) -> dict[str, float]:
    """Returns the attacker's budget, averaged over repeats."""
    return {name: float(np.mean([getattr(one, name) for one in attempts])) for name in BUDGET}
