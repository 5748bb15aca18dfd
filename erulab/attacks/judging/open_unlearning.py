"""OpenUnlearning's robustness figures R and Q (arXiv:2506.12618, section 4.2), in addition to erulab's own.

m is a score of forget rows in [0, 1], higher if more is known; b is before and a after the intervention:

    R = min((m_ret^a - m_ret^b) / (m_unl^a - m_unl^b), 1)   relearning; ret: the retain model, erulab's oracle
    Q = min(m_unl^b / m_unl^a, 1)                           quantisation

1 means that the score had missed no knowledge. Below 1, the unlearned model relearned faster than a model that never
knew, or rounding alone brought knowledge back. The paper judges a metric by averages of R and Q over many unlearned
models (those of utility 80 % or more that the metric calls unlearned); here each is computed for one model.

Sources: both formulas, R's relearning on the whole forget set for one epoch at 2e-5
(`attack.relearn.split=all attack.relearn.lr=[2e-5] attack.relearn.epochs=1`) and Q's 4-bit quantisation by bitsandbytes
are from a transcript of the paper; we found no code for them in locuslab/open-unlearning. One sentence of the paper
calls m^a the score before and m^b the score after. That leaves R as it is and inverts Q. But its figure 10 calls models
unreliable if their score *rises* under quantisation, which agrees with Q as above. A third party's code
(gnueaj/unlearning-depth-score) has both versions. The paper does not define R for a denominator of 0 or less; here it
is undefined. Q is computed for the rounding that the row's setting names; the paper uses bitsandbytes' 4-bit floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Column of attacks.json -> the attack whose rows have it.
ATTACKS = {"open_unlearning_r": "relearn", "open_unlearning_q": "quantize"}


def open_unlearning_columns(attack: str, means: Mapping[str, float | None], *, score: bool) -> dict[str, Any]:
    """Returns the columns of one row.

    Args:
        attack: the attack's registered name.
        means: the models' mean scores before and after, as `ModelValues.means` returns them.
        score: whether the metric is a score in [0, 1].
    Returns:
        `open_unlearning_r` and `open_unlearning_q`, None if undefined or on rows of other attacks; `note` with why.
    """
    columns: dict[str, Any] = dict.fromkeys(ATTACKS)
    note = ""
    for column in (name for name, own in ATTACKS.items() if own == attack):
        oracle, unlearned = means["oracle"], means["unlearned"]
        attacked_oracle, attacked_unlearned = means["attacked_oracle"], means["attacked_unlearned"]
        if not score:
            note = f"{column} undefined: it is defined for scores in [0, 1]"
        elif oracle is None or unlearned is None or attacked_oracle is None or attacked_unlearned is None:
            note = f"{column} undefined: not all scores are there and finite"
        elif column == "open_unlearning_r":
            columns[column] = relearning_ratio(attacked_oracle - oracle, attacked_unlearned - unlearned)
            note = "" if columns[column] is not None else f"{column} undefined: the unlearned model learned nothing"
        else:
            columns[column] = quantisation_ratio(unlearned, attacked_unlearned)
            note = "" if columns[column] is not None else f"{column} undefined: the score after it is 0"
    return {**columns, "note": note}


def relearning_ratio(oracle_gain: float, unlearned_gain: float) -> float | None:
    """Returns R from the gains of oracle and unlearned model by relearning; None if the latter gains nothing."""
    return min(oracle_gain / unlearned_gain, 1.0) if unlearned_gain > 0 else None


def quantisation_ratio(before: float, after: float) -> float | None:
    """Returns Q from the unlearned model's scores; None if the score after quantisation is 0."""
    return min(before / after, 1.0) if after > 0 else None
