"""What is forgotten and what is kept along the way: a look at the model every few steps of unlearning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from erulab.attacks.judging.scoring import has_score
from erulab.costs.ledger import Ledger
from erulab.data.rows import Role, Suite
from erulab.evaluation.evaluate import FORGET_ROLES, RowScore, evaluate
from erulab.models.loaded import LoadedModel
from erulab.stages.context import Context
from erulab.training.engine import Engine

# Of each suite, as far as all its rows have them; teacher-forced, so that a look takes seconds.
FIGURES = ("choice", "accuracy", "probability")
KNOWLEDGE = "log_odds"  # of forget suites beside them: what K is made of


class Trajectory:
    """Figures of forget and retain suites during unlearning, as `eval/<suite>/<figure>`: means over the rows that the
    evaluation scores, so that they compare with scores.json."""

    def __init__(self, context: Context, loaded: LoadedModel, engine: Engine) -> None:
        """`loaded`: the model that the engine trains."""
        self._every = context.config.trainer.eval_every
        self._options = dataclasses.replace(context.config.evaluation, generate=False)
        self._suites = [
            suite
            for suite in context.data.selected.suites
            if suite.role is not Role.UNSEEN and has_score(suite, self._options)
        ]
        # A ledger of its own: what it costs to look is no cost of unlearning.
        self._loaded = dataclasses.replace(loaded, ledger=Ledger())
        self._engine, self._ranks = engine, context.ranks

    def after(self, steps: int) -> dict[str, float]:
        """The figures after so many steps; {} where nobody looks."""
        if self._every is None or steps % self._every:
            return {}
        self._loaded.model.eval()
        with self._engine.autocast():
            rows = evaluate(self._loaded, self._suites, self._options, self._ranks, headline=True)
        self._loaded.model.train()
        return {name: value for suite in self._suites for name, value in _means(suite, rows).items()}


def _means(suite: Suite, scored: Sequence[RowScore]) -> dict[str, float]:
    rows = [row.figures for row in scored if row.suite == suite.name]
    wanted = (KNOWLEDGE, *FIGURES) if suite.role in FORGET_ROLES else FIGURES
    common = [figure for figure in wanted if all(figure in row for row in rows)]
    return {f"eval/{suite.name}/{figure}": sum(row[figure] for row in rows) / len(rows) for figure in common}
