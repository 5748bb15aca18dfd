"""The rank of the true value or answer among the wrong ones. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def rank_figures(right: float, wrong: Sequence[float]) -> dict[str, float]:
    """Returns `rank` and `rank_auc` of one row; a wrong value as likely as the true one counts one half.

    rank: 1 if the true value is the most likely one, up to 1 + the number of wrong values.
    rank_auc: the share of wrong values that are less likely than the true one, in [0, 1]; 0.5 in the mean over rows for
        a model that guesses, whatever the number of wrong values.

    Both are NaN if an NLL is: otherwise a broken model would have the best rank.

    Args:
        right, wrong: NLLs, nats; at least one wrong value.
    """
    if math.isnan(right) or any(map(math.isnan, wrong)):
        return {"rank": math.nan, "rank_auc": math.nan}
    beaten_by = sum((nll < right) + 0.5 * (nll == right) for nll in wrong)
    return {"rank": 1.0 + beaten_by, "rank_auc": 1.0 - beaten_by / len(wrong)}
