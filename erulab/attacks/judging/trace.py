"""Runs one attack on one model: the row scores of every attempt, and the attacker's budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from erulab.attacks.base import Attack, Lab, Setting
from erulab.costs.ledger import Ledger
from erulab.data.rows import Suite
from erulab.evaluation.row_score import RowScore
from erulab.models.loaded import LoadedModel


@dataclass(frozen=True)
class AttemptResult:
    """One attempt on one model.

    rows: scores of the forget rows.
    utility: scores of the retain rows; None if the weights are unchanged.
    steps, flops, seconds: the attacker's budget from the first attempt to the end of this one, without scoring.
    remark, left_alone: of the `Attempt`.
    """

    chosen: Setting
    rows: list[RowScore]
    utility: list[RowScore] | None
    steps: int
    flops: float
    seconds: float
    remark: str = ""
    left_alone: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        utility = self.utility and _rows_as_json(self.utility)
        return {**asdict(self), "rows": _rows_as_json(self.rows), "utility": utility}

    @staticmethod
    def from_json(plain: dict[str, Any]) -> AttemptResult:
        utility = plain["utility"]
        return AttemptResult(
            **{
                **plain,
                "rows": [RowScore.from_json(row) for row in plain["rows"]],
                "utility": utility and [RowScore.from_json(row) for row in utility],
            }
        )


def run_attack(
    attack: Attack, subject: LoadedModel, setting: Setting, lab: Lab, utility: Suite, ledger: Ledger
) -> list[AttemptResult]:
    """Runs all attempts of an attack on one model, and scores each before the next one is made.

    Args:
        utility: retain rows on which a model with changed weights is scored.
        ledger: counts the FLOPs of everything the model runs.
    """
    suites = attack.scored(setting, lab.benchmark, lab.repeat)
    results = []
    flops = seconds = 0.0
    begun, started = ledger.spent.flops, time.perf_counter()
    for attempt in attack.attempts(subject, setting, lab):
        flops += ledger.spent.flops - begun
        seconds += time.perf_counter() - started
        rows = attempt.score(suites)
        left = None if attempt.changed is None else lab.score(attempt.changed, (utility,))
        results.append(
            AttemptResult(
                attempt.chosen, rows, left, attempt.steps, flops, seconds, attempt.remark, dict(attempt.left_alone)
            )
        )
        begun, started = ledger.spent.flops, time.perf_counter()
    return results


def _rows_as_json(rows: Sequence[RowScore]) -> list[dict[str, Any]]:
    # Without the responses: these are for people, and nobody reads those of hundreds of attempts.
    return [{**row.to_json(), "response": ""} for row in rows]
