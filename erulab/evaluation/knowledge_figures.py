"""Knowledge left as figures of scores.json: of the unlearned model, and of each oracle against the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erulab.evaluation.knowledge import knowledge_left, knowledge_values
from erulab.evaluation.measurable import why_not_measurable
from erulab.evaluation.oracle_spread import knowledge_left_of_oracles, oracle_spread
from erulab.evaluation.row_score import RowScore
from erulab.roles import ORACLE, oracles_among


def knowledge_left_figures(rows: Mapping[str, Sequence[RowScore]]) -> dict[str, dict[str, Any]]:
    """Returns the figures that compare a model with target and oracles; {} if one of the three was not scored.

    Args:
        rows: role ("target", "unlearned", "oracle", "oracle@2", ...) -> its row scores of the data set.
    Returns:
        role -> figure -> value. "unlearned": `knowledge_left` with `_low`, `_high`, `_low90`, `_high90`, the number of
        `_facts`, a `_note` if it cannot be judged, and with several oracles `oracle_spread`. Each of several oracles:
        its `knowledge_left` against the mean of the others.
    """
    if not {"target", "unlearned", ORACLE} <= rows.keys():
        return {}
    values, facts = knowledge_values(rows["unlearned"])
    target, _ = knowledge_values(rows["target"])
    roles = oracles_among(rows)
    oracles = np.stack([knowledge_values(rows[role])[0] for role in roles])
    left = knowledge_left(values, target, oracles, facts)
    ends = {f"knowledge_left_{end}": getattr(left, end) for end in ("low", "high", "low90", "high90")}
    unlearned = {"knowledge_left": left.value, **ends, "knowledge_left_facts": len(set(facts))}
    if note := why_not_measurable(rows["target"], rows[ORACLE]) or left.reason:
        unlearned["knowledge_left_note"] = note
    result: dict[str, dict[str, Any]] = {"unlearned": unlearned}
    if len(roles) > 1 and left.value is not None:
        of_oracles = knowledge_left_of_oracles(target, oracles)
        result |= {role: {"knowledge_left": float(value)} for role, value in zip(roles, of_oracles, strict=True)}
        unlearned["oracle_spread"] = oracle_spread(of_oracles)
    return result
