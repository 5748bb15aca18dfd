"""Knowledge left on other scores than log-odds: the rank of the true value, and facts at their worst phrasing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from erulab.evaluation.figures.groups import worst_of_phrasings
from erulab.evaluation.knowledge import RatioEstimate, knowledge_left
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import knowledge_rows
from erulab.roles import ORACLE

Rows = Sequence[RowScore]


def knowledge_left_ratios(rows: Mapping[str, Rows]) -> dict[str, float | None]:
    """Returns `knowledge_left_rank` and `knowledge_left_worst`, with `_low` and `_high`, if they are defined.

    Args:
        rows: role -> its row scores of the data set. Of several oracles the first counts.
    """
    if not {"target", "unlearned", ORACLE} <= rows.keys():
        return {}
    models = (rows["unlearned"], rows["target"], rows[ORACLE])
    result: dict[str, float | None] = {}
    for name, left in (("knowledge_left_rank", rank_left(*models)), ("knowledge_left_worst", worst_left(*models))):
        if left.value is not None:
            result |= {name: left.value, f"{name}_low": left.low, f"{name}_high": left.high}
    return result


def rank_left(model: Rows, target: Rows, oracle: Rows) -> RatioEstimate:
    """Returns K with `rank_auc` in place of log-odds: the share of wrong values that are less likely than the true one.

    Args:
        model, target, oracle: scores of the same rows.
    """
    scored = [[row for row in knowledge_rows(rows) if "rank_auc" in row.figures] for rows in (model, target, oracle)]
    own, before, retrained = (np.array([row.figures["rank_auc"] for row in rows]) for rows in scored)
    return knowledge_left(own, before, retrained, [row.fact for row in scored[0]])


def worst_left(model: Rows, target: Rows, oracle: Rows) -> RatioEstimate:
    """Returns K with the share of facts that are chosen rightly in at least one phrasing in place of log-odds; without
    candidates, the share that is answered word for word in at least one phrasing.

    Args:
        model, target, oracle: scores of the same rows.
    """
    facts = [worst_of_phrasings(rows) for rows in (model, target, oracle)]
    name = "choice" if any("choice" in entry.figures for entry in facts[0]) else "exact_match"
    having = [[entry for entry in entries if name in entry.figures] for entries in facts]
    own, before, retrained = (np.array([entry.figures[name] for entry in entries]) for entries in having)
    return knowledge_left(own, before, retrained, [entry.fact for entry in having[0]])
