"""Judges the steps of an unlearning by half of the facts (trainer.keep=best); the other half is reported.

It is the half by which attacks choose among their attempts, so nothing that is reported was chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erulab.attacks.judging.metrics import utility_figure
from erulab.attacks.judging.row_figures import RowKey, figure_values, figures_by_row
from erulab.data.measures import Answers, Generated, Texts
from erulab.data.rows import Role, Suite
from erulab.errors import ConfigError, DataError
from erulab.evaluation.knowledge import Values, knowledge_left, rank_by_objective
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, knowledge_rows, teacher_forced_suites
from erulab.options import Facts
from erulab.reporting.trajectories import UNREHEARSED
from erulab.stages.context import Context
from erulab.stages.evaluate import measure_code, score_model
from erulab.training.loader import ModelRef

LAST = "type trainer.keep=last"  # what is left where the best step cannot be chosen


@dataclass(frozen=True)
class StepScore:
    """How good the model after `step` steps is, on the facts that choose.

    knowledge: knowledge left (K); None if the model's scores are not finite.
    utility: as a share of the target's.
    """

    step: int
    knowledge: float | None
    utility: float

    def rank(self, least: float) -> tuple[bool, float]:
        """Returns a key that is smaller for better steps. `least`: as for `rank_by_objective`."""
        return rank_by_objective(np.inf if self.knowledge is None else abs(self.knowledge), self.utility, least)


class StepJudge:
    """Judges a model on the way by |knowledge left| of the facts that choose, under a floor of utility."""

    def __init__(
        self,
        target: Sequence[RowScore],
        oracle: Sequence[RowScore],
        suites: Sequence[Suite],
        facts: frozenset[str],
        least: float,
    ) -> None:
        """
        Args:
            target, oracle: row scores of both models.
            suites: the suites on which models on the way are scored; one of them is a retain suite.
            facts: those that choose.
            least: share of the target's utility that the best step keeps, if any step does.
        Raises:
            DataError: knowledge left is undefined on these facts, or the target has no utility.
        """
        self.least = least
        names = {suite.name for suite in suites}
        rows = [row for row in knowledge_rows(target) if row.suite in names and row.fact in facts]
        self._keys: list[RowKey] = [(row.suite, row.id) for row in rows]
        self._clusters = [row.fact for row in rows]
        self._target, self._oracle = self._log_odds(target), self._log_odds(oracle)
        whole = knowledge_left(self._target, self._target, self._oracle, self._clusters)
        if whole.value is None:
            raise DataError(
                f"trainer.keep=best chooses by knowledge left on {self.facts} facts, where it is undefined: "
                f"{whole.reason}; {LAST}"
            )
        suite = _suite_of_utility(suites)
        assert suite is not None, "check_kept_step refuses such data sets"
        self._suite, self._figure = (
            suite.name,
            utility_figure(suite, [row for row in target if row.suite == suite.name]),
        )
        self._target_utility = self._mean_utility(target)
        if not self._target_utility > 0:
            raise DataError(
                f"trainer.keep=best keeps a share of the target's utility, and its {self._suite}/{self._figure} is 0; "
                f"{LAST}"
            )

    @property
    def facts(self) -> int:
        """The number of facts that choose and have log-odds."""
        return len(set(self._clusters))

    def judge(self, step: int, rows: Sequence[RowScore]) -> StepScore:
        """Judges the model after `step` steps by its row scores."""
        left = knowledge_left(self._log_odds(rows), self._target, self._oracle, self._clusters)
        return StepScore(step, left.value, self._mean_utility(rows) / self._target_utility)

    def _log_odds(self, rows: Sequence[RowScore]) -> Values:
        """Returns the log-odds of the rows that choose, (rows,) nats; NaN for all of them if one has none."""
        found = figure_values(figures_by_row(rows), self._keys, "log_odds")
        return np.full(len(self._keys), np.nan) if found is None else found

    def _mean_utility(self, rows: Sequence[RowScore]) -> float:
        return float(np.mean([row.figures[self._figure] for row in rows if row.suite == self._suite]))


def build_step_judge(context: Context, target: ModelRef, oracle: ModelRef) -> StepJudge:
    """Builds the judge of a run; it scores target and oracle as the evaluation does, which then finds the scores."""
    scored = {role: score_model(context, role, ref)[0][0] for role, ref in (("target", target), ("oracle", oracle))}
    suites = teacher_forced_suites(context.data.selected, context.config.evaluation)
    least = context.config.trainer.keep_utility
    return StepJudge(scored["target"], scored["oracle"], suites, context.choosing_facts, least)


def choice_depends_on(context: Context, oracle: ModelRef | None) -> dict[str, Any]:
    """Returns what the choice of the step depends on, beside what all unlearned weights depend on; {} without one."""
    if not context.keeps_best or oracle is None:
        return {}
    code = measure_code(context.data.selected.suites)
    half = {"facts": "tuning"} if context.config.evaluation.facts is not Facts.all else {}
    return {"kept": {"oracle": oracle.key, "data": context.data.identity, **half, **code}}


def check_kept_step(context: Context) -> None:
    """Checks that the data set has what `trainer.keep=best` chooses by.

    Raises:
        ConfigError: it has several requests, and the steps of one are not judged by what the next one forgets.
        DataError: it has fewer than two facts to forget, no wrong answers to them, or no retain rows to measure.
    """
    if not (context.keeps_best and context.unlearns):
        return
    if len(context.benchmark.requests) > 1:
        raise ConfigError(f"trainer.keep=best judges the steps of one request, and there are several; {LAST}")
    if not context.choosing_facts:
        raise DataError(
            "trainer.keep=best chooses by half of the facts to forget and reports the other half, and fewer than two "
            f"facts are measured; {LAST}"
        )
    suites = teacher_forced_suites(context.data.selected, context.config.evaluation)
    if not any(may_have_log_odds(suite) for suite in suites if suite.role in FORGET_ROLES):
        raise DataError(
            f"trainer.keep=best chooses by knowledge left, and no forget row that is measured has wrong answers; {LAST}"
        )
    if _suite_of_utility(suites) is None:
        raise DataError(
            "trainer.keep=best keeps a share of the target's utility, and no retain suite is measured without "
            f"generation (evaluation.suites); {LAST}"
        )


def _suite_of_utility(suites: Sequence[Suite]) -> Suite | None:
    """Returns the retain suite that tells utility, as in a trajectory: unrehearsed rows if there are any."""
    retain = {suite.name: suite for suite in suites if suite.role is Role.RETAIN}
    return retain.get(UNREHEARSED, next(iter(retain.values()), None))


def may_have_log_odds(suite: Suite) -> bool:
    """Tells whether some row may get log-odds; a measure of the user's own may give them to any."""
    if isinstance(suite.measure, Answers):
        return any(row.candidates or row.perturbed or row.options for row in suite.rows)
    return not isinstance(suite.measure, Texts | Generated)
