"""The figure that utility is read from: knowledge that must stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Utility is the first of these figures that was scored; the last three are RWKU's, MUSE's and WMDP's.
UTILITIES = (
    "retain_unrehearsed/exact_match",
    "retain_unrehearsed/choice",
    "model_utility",
    "retain/probability",
    "neighbor_all/rwku_recall",
    "knowmem_r/rouge_f1",
    "mmlu/accuracy",
)


def utility_figure(target: Mapping[str, Any], unlearned: Mapping[str, Any]) -> str | None:
    """Returns the name of the figure that utility is read from; None if both models share none of them.

    Args:
        target, unlearned: figures of scores.json.
    """
    return next((name for name in UTILITIES if target.get(name) is not None and unlearned.get(name) is not None), None)
