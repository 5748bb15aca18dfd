"""One attack in one setting on one model at a time, for a search over its options; each attack is a cached job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from erulab.attacks.base import Setting
from erulab.attacks.halves import validation_half
from erulab.attacks.judging.attacked_setting import MODELS, AttackedSetting, UnattackedScores
from erulab.attacks.judging.choosing import validation_means
from erulab.attacks.judging.metrics import setting_metrics, utility_figure
from erulab.attacks.judging.row_figures import figures_by_row
from erulab.attacks.judging.rows import attack_json_rows
from erulab.attacks.judging.scoring import merge_suites, utility_suite
from erulab.attacks.judging.trace import AttemptResult
from erulab.errors import DataError, NumericFault
from erulab.stages.attack import unattacked_scores
from erulab.stages.attack_jobs import AttackJob, JobRunner
from erulab.stages.attack_plan import plan_attacks, scored_suites
from erulab.stages.context import Context
from erulab.training.loader import ModelRef


@dataclass(frozen=True)
class Gain:
    """What an attack brought back on one model.

    level: mean headline figure of the validation facts after the attack, over repeats: log-odds in nats where the data
        set has them.
    utility: the model's mean score on retain rows after the attack, over repeats; plain_utility: before it.
    """

    level: float
    utility: float
    plain_utility: float

    @property
    def kept(self) -> float | None:
        """The share of its own utility that the model keeps; None if it had none."""
        return self.utility / self.plain_utility if self.plain_utility > 0 else None

    def lacks(self, share: float) -> float:
        """Returns what utility lacks to this share of what it was; 0 if it keeps as much, infinite if undefined."""
        lacking = share * self.plain_utility - self.utility
        return max(0.0, lacking) if math.isfinite(lacking) else math.inf


class ModelAttack:
    """The one attack of a run, in its one setting, on one of its models at a time."""

    def __init__(self, context: Context, refs: Mapping[str, ModelRef]) -> None:
        """
        Args:
            refs: role -> model, for "target", "unlearned" and "oracle".
        Raises:
            DataError: the run has several attacks or settings, or its attack cannot be run or judged here.
        """
        self._context = context
        self._planned = plan_attacks(context)
        if len(self._planned.settings) != 1:
            names = ", ".join(f"{name} {setting}" for name, setting in self._planned.settings)
            raise DataError(f"attacker.attack must name one attack in one setting, got {names}; try attack=relearn")
        self._runner = JobRunner(context, self._planned, dict(refs))
        self._utility = utility_suite(context.data.selected, context.config.evaluation)

    @property
    def name(self) -> str:
        return self._planned.settings[0][0]

    @property
    def setting(self) -> Setting:
        return self._planned.settings[0][1]

    @property
    def scored_rows(self) -> list[tuple[str, str]]:
        """Suite and id of every row that the attack is scored on, over all repeats."""
        return [(suite.name, row.id) for suite in self._suites for row in suite.rows]

    def unattacked(self, model: str) -> UnattackedScores:
        """Scores a model without the attack."""
        job = AttackJob(None, -1, 0, model)
        return unattacked_scores(self._run([job])[job][0].rows, self._utility)

    def run_on(self, model: str) -> list[AttemptResult]:
        """Runs the attack on a model; returns its one attempt in each repeat.

        Raises:
            NumericFault: the attack failed on this model, as by a loss that is not a number.
            DataError: the attack makes several attempts.
        """
        jobs = [AttackJob(self.name, 0, repeat, model) for repeat in range(self._planned.built[self.name].repeats)]
        traces = self._run(jobs)
        if any(len(traces[job]) > 1 for job in jobs):
            raise DataError(
                f"attacker.attack: a trial makes one attempt, and {self.name} makes {len(traces[jobs[0]])}; leave one "
                "learning rate and points=1"
            )
        return [traces[job][0] for job in jobs]

    def gain(self, attempts: Sequence[AttemptResult], plain: UnattackedScores) -> Gain:
        """Returns what attempts brought back.

        Args:
            attempts: on one model, one per repeat.
            plain: the same model without the attack.
        Raises:
            DataError: no row phrases a validation fact, or no row phrases another fact.
        """
        validation = validation_half(self._context.data.selected, self._context.config.seed)
        scored = [row for one in attempts for row in one.rows]
        metric = next(iter(setting_metrics(self._suites, scored, figures_by_row(plain.rows)).values()))
        levels = [validation_means([one], metric, validation)[0] for one in attempts]
        figure = utility_figure(self._utility, plain.utility)
        after = [np.mean([row.figures[figure] for row in one.utility or plain.utility]) for one in attempts]
        before = np.mean([row.figures[figure] for row in plain.utility])
        return Gain(float(np.mean(levels)), float(np.mean(after)), float(before))

    def rows(
        self,
        name: str,
        setting: Setting,
        attempts: Mapping[str, Sequence[AttemptResult]],
        plain: Mapping[str, UnattackedScores],
        chosen: Mapping[str, Setting],
    ) -> list[dict[str, Any]]:
        """Returns the rows of attacks.json of the chosen attempts, measured on facts that chose nothing.

        Args:
            name, setting: as the rows name the attack.
            attempts: model -> one attempt per repeat.
            plain: model -> its scores without the attack.
            chosen: model -> its settings.
        """
        config, context = self._context.config, self._context
        validation = validation_half(context.data.selected, config.seed)
        results = {model: [[one] for one in attempts[model]] for model in MODELS}
        kind = config.attack[self.name].name
        attacked = AttackedSetting(name, kind, setting, self._suites, self._utility, results, config.report.margin)
        rows = attack_json_rows(attacked, plain, validation, context.unreported_facts | validation)
        rows[0]["chosen"] = {model: [dict(chosen[model])] * len(attempts[model]) for model in MODELS}
        return rows

    @cached_property
    def _suites(self) -> list[Any]:
        return merge_suites(scored_suites(self._planned, self._context, *self._planned.settings[0]))

    def _run(self, jobs: Sequence[AttackJob]) -> dict[AttackJob, list[AttemptResult]]:
        done = self._runner.run(jobs)
        if done.failures:
            raise NumericFault("; ".join(dict.fromkeys(done.failures.values())))
        return done.traces
