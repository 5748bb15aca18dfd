"""Trajectories: what a model still knows and what it keeps, scored every few steps of unlearning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from erulab.costs.ledger import Ledger
from erulab.data.rows import Role, Suite
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, has_knowledge_figure
from erulab.models.loaded import LoadedModel
from erulab.stages.context import Context
from erulab.training.engine import Engine

# Figures of each suite, if all its rows have them; teacher-forced, so that scoring takes seconds.
FIGURES = ("choice", "accuracy", "probability")
KNOWLEDGE = "log_odds"  # of forget suites as well: "knowledge left" is computed from it


class Trajectory:
    """Scores forget and retain suites during unlearning as `eval/<suite>/<figure>`.

    The figures are means over the rows that the evaluation scores, so they compare with scores.json.
    """

    def __init__(self, context: Context, loaded: LoadedModel, engine: Engine) -> None:
        """`loaded`: the model that the engine trains."""
        self._every = context.config.trainer.eval_every
        self._options = dataclasses.replace(context.config.evaluation, generate=False)
        self._suites = [
            suite
            for suite in context.data.selected.suites
            if suite.role is not Role.UNSEEN and has_knowledge_figure(suite, self._options)
        ]
        # A separate ledger, because scoring does not belong to the cost of unlearning.
        self._loaded = dataclasses.replace(loaded, ledger=Ledger())
        self._engine, self._ranks = engine, context.ranks

    def after(self, steps: int) -> dict[str, float]:
        """Returns the figures after this many steps; {} between two points of the trajectory."""
        if self._every is None or steps % self._every:
            return {}
        self._loaded.model.eval()
        with self._engine.autocast():
            rows = evaluate(self._loaded, self._suites, self._options, self._ranks, for_attacks_only=True)
        self._loaded.model.train()
        return {name: value for suite in self._suites for name, value in _suite_means(suite, rows).items()}


def _suite_means(suite: Suite, scored: Sequence[RowScore]) -> dict[str, float]:
    rows = [row.figures for row in scored if row.suite == suite.name]
    figures = (*FIGURES, *(name for name in suite.measure.knowledge if name not in FIGURES))
    names = (KNOWLEDGE, *figures) if suite.role in FORGET_ROLES else figures
    common = [name for name in names if all(name in row for row in rows)]
    return {f"eval/{suite.name}/{name}": sum(row[name] for row in rows) / len(rows) for name in common}
