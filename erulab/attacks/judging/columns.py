"""Columns of attacks.json that not every row fills: those of headlines, and the row of an attack without figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erulab.attacks.base import Setting
from erulab.attacks.judging import open_unlearning
from erulab.attacks.judging.figures import FIGURES
from erulab.attacks.judging.metrics import HEADLINE

# `standing` of a row: whether it says something about robustness.
COUNTS, NOT_VALID, UNDEFINED, NOT_RUN = "counts", "not_valid", "undefined", "not_run"
# The attacker's budget on the unlearned model, and the unlearned model's utility before and after.
BUDGET = ("steps", "flops", "seconds")
UTILITY = ("utility", "utility_attacked")


def row_without_figures(attack: str, setting: Setting, reason: str) -> dict[str, Any]:
    """Returns the row of an attack that did not run or failed."""
    empty = dict.fromkeys((*FIGURES, *open_unlearning.ATTACKS, *BUDGET, *UTILITY))
    return {
        "attack": attack,
        "setting": setting,
        "metric": HEADLINE,
        "headline": True,
        **empty,
        "valid": False,
        "standing": NOT_RUN,
        "reason": reason,
        "note": "",
        "facts": 0,
        "n": 0,
        **headline_columns(),
    }


def headline_columns(
    chosen: dict[str, list[Setting]] | None = None,
    attempts: Sequence[dict[str, Any]] = (),
    repeats: Sequence[float | None] = (),
    savings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the columns that only a setting's headline fills; empty by default."""
    return {"chosen": chosen or {}, "attempts": list(attempts), "repeats": list(repeats), "savings": savings or {}}
