"""One attack on one model, carried out: what every attempt made of the rows, and what it took the attacker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erulab.attacks.base import Attack, Lab, Setting
from erulab.costs.ledger import Ledger
from erulab.data.rows import Suite
from erulab.evaluation.evaluate import RowScore
from erulab.models.loaded import LoadedModel


@dataclass(frozen=True)
class Tried:
    """One attempt. `utility`: of retain rows, None where the weights are as they were; the rest: the attacker's budget,
    from the first attempt to the end of this one, without what scoring took."""

    chosen: Setting
    rows: list[RowScore]
    utility: list[RowScore] | None
    steps: int
    flops: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rows": _plain(self.rows), "utility": self.utility and _plain(self.utility)}

    @staticmethod
    def from_json(plain: dict[str, Any]) -> Tried:
        utility = plain["utility"]
        return Tried(
            **{
                **plain,
                "rows": [RowScore.from_json(row) for row in plain["rows"]],
                "utility": utility and [RowScore.from_json(row) for row in utility],
            }
        )


def carry_out(
    attack: Attack, subject: LoadedModel, setting: Setting, lab: Lab, utility: Suite, ledger: Ledger
) -> list[Tried]:
    """All attempts of an attack on one model, each scored before the next is made.

    Args:
        utility: retain rows that a model with changed weights is asked.
        ledger: where what the model runs is added up.
    """
    suites = attack.scored(setting, lab.benchmark, lab.repeat)
    tried = []
    flops = seconds = 0.0
    begun, started = ledger.spent.flops, time.perf_counter()
    for attempt in attack.attempts(subject, setting, lab):
        flops += ledger.spent.flops - begun
        seconds += time.perf_counter() - started
        rows = attempt.score(suites)
        left = None if attempt.changed is None else lab.score(attempt.changed, (utility,))
        tried.append(Tried(attempt.chosen, rows, left, attempt.steps, flops, seconds))
        begun, started = ledger.spent.flops, time.perf_counter()
    return tried


def _plain(rows: Sequence[RowScore]) -> list[dict[str, Any]]:
    # Responses are for people; nobody reads those of hundreds of attempts.
    return [{**row.to_json(), "response": ""} for row in rows]
