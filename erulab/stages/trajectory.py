"""Trajectories: what a model still knows and what it keeps, scored every few steps of unlearning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from erulab.costs.ledger import Ledger
from erulab.data.rows import Suite
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, teacher_forced_suites, without_facts
from erulab.models.loaded import LoadedModel
from erulab.stages.best_step import BestStep
from erulab.stages.context import Context
from erulab.training.engine import Engine

# Figures of each suite, if all its rows have them; teacher-forced, so that scoring takes seconds.
FIGURES = ("choice", "accuracy", "probability")
KNOWLEDGE = "log_odds"  # of forget suites as well: "knowledge left" is computed from it


class Trajectory:
    """Scores forget and retain suites during unlearning as `eval/<suite>/<figure>`.

    The figures are means over the rows that scores.json reports, so they compare with it.
    """

    def __init__(
        self, context: Context, loaded: LoadedModel, engine: Engine, steps: int, best: BestStep | None = None
    ) -> None:
        """
        Args:
            loaded: the model that the engine trains.
            steps: of the whole unlearning.
            best: keeps the best of the scored steps (`trainer.keep=best`).
        """
        self._every, self._steps, self._best = context.config.trainer.eval_every, steps, best
        self._options = dataclasses.replace(context.config.evaluation, generate=False)
        self._suites = teacher_forced_suites(context.data.selected, context.config.evaluation)
        self._left_out = context.unreported_facts
        # A separate ledger, because scoring does not belong to the cost of unlearning.
        self._loaded = dataclasses.replace(loaded, ledger=Ledger())
        self._engine, self._ranks = engine, context.ranks
        self._trained_only = context.config.model.lora.rank > 0

    def after(self, steps: int) -> dict[str, float]:
        """Returns the figures after this many steps; {} between two points of the trajectory."""
        due = self._every is not None and steps % self._every == 0
        if not due and (self._best is None or steps < self._steps):
            return {}
        self._loaded.model.eval()
        # Without autocast: target and oracle, which the figures are compared with, are scored in float32 as well.
        # From ZeRO stage 1 on in bf16, the weights themselves are bfloat16 here, and float32 only once they are saved.
        rows = evaluate(self._loaded, self._suites, self._options, self._ranks, for_attacks_only=True)
        self._loaded.model.train()
        reported = without_facts(rows, self._left_out)
        figures = {name: value for suite in self._suites for name, value in _suite_means(suite, reported).items()}
        if self._best is None:
            return figures
        return figures | self._best.offer(steps, rows, self._engine.weights(trained_only=self._trained_only))


def _suite_means(suite: Suite, scored: Sequence[RowScore]) -> dict[str, float]:
    rows = [row.figures for row in scored if row.suite == suite.name]
    if not rows:
        return {}
    figures = (*FIGURES, *(name for name in suite.measure.knowledge if name not in FIGURES))
    names = (KNOWLEDGE, *figures) if suite.role in FORGET_ROLES else figures
    common = [name for name in names if all(name in row for row in rows)]
    return {f"eval/{suite.name}/{name}": sum(row[name] for row in rows) / len(rows) for name in common}
