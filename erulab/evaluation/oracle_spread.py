"""The spread of several oracles: how much knowledge left a model has by chance that never saw the facts."""

from __future__ import annotations

import numpy as np

from erulab.evaluation.knowledge import Values


def knowledge_left_of_oracles(target: Values, oracles: Values) -> Values:
    """Computes knowledge left of each oracle, judged like an unlearned model: its zero is the mean of the others.

    Args:
        target: (rows,) a score of the same rows under the target, such as log-odds.
        oracles: (oracles, rows) the same under each oracle; at least 2.
    Returns:
        (oracles,) 0 if they are all alike.
    """
    means, count = oracles.mean(1), len(oracles)
    others = (means.sum() - means) / (count - 1)
    left: Values = (means - others) / (target.mean() - others)
    return left


def oracle_spread(left: Values) -> float:
    """Returns the standard deviation of knowledge left over models that never saw the facts, as a share.

    The mean square is divided by the number of oracles, not by one less: the expected value is known to be 0, so no
    mean is estimated.

    Args:
        left: (oracles,) of `knowledge_left_of_oracles`.
    """
    return float(np.sqrt(np.mean(left**2)))
