"""OpenUnlearning's robustness figures R and Q (arXiv:2506.12618, section 4.2), beside erulab's own.

m is a score of forget rows in [0, 1], higher where more is known; b before, a after the intervention:

    R = min((m_ret^a - m_ret^b) / (m_unl^a - m_unl^b), 1)   relearning; ret: the retain model, erulab's oracle
    Q = min(m_unl^b / m_unl^a, 1)                           quantisation

1: the score had missed nothing. Below: relearning taught the unlearned model faster than one that never knew, or
rounding alone brought knowledge back. There they judge a metric, averaged over many unlearned models (of utility 80 %
or more, and unlearned by that metric); here each is of one model.

What the sources say: both formulas, R's relearning on the whole forget set for one epoch at 2e-5
(`attack.relearn.split=all attack.relearn.lr=[2e-5] attack.relearn.epochs=1`) and Q's 4-bit quantisation by bitsandbytes
were read in a stored transcript of the paper; the stored files of locuslab/open-unlearning show no code of them.
The paper's sentence calls m^a the score before and m^b that after, which leaves R as it is and turns Q round. Its
figure 10 calls models unreliable whose score *rises* under quantisation, which is Q as above. A third party's code
(gnueaj/unlearning-depth-score) has it both ways. Where R's denominator is not above 0 the paper says nothing: undefined
here. Q is of whichever rounding the row's setting names; theirs is bitsandbytes' 4-bit floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Columns of attacks.json, and the attack whose rows have each of them.
ATTACKS = {"open_unlearning_r": "relearn", "open_unlearning_q": "quantize"}


def robustness(attack: str, means: Mapping[str, float | None], *, score: bool) -> dict[str, Any]:
    """The columns of one row.

    Args:
        means: of the models before and after, as `figures.Measured.means`.
        score: whether they are of a score in [0, 1].
    Returns:
        `open_unlearning_r` and `open_unlearning_q`, None on other attacks' rows and where undefined, and `note`.
    """
    columns: dict[str, Any] = dict.fromkeys(ATTACKS)
    note = ""
    for column in (name for name, own in ATTACKS.items() if own == attack):
        oracle, unlearned = means["oracle"], means["unlearned"]
        attacked_oracle, attacked_unlearned = means["attacked_oracle"], means["attacked_unlearned"]
        if not score:
            note = f"{column} undefined: it is of scores in [0, 1]"
        elif oracle is None or unlearned is None or attacked_oracle is None or attacked_unlearned is None:
            note = f"{column} undefined: not all scores are there and finite"
        elif column == "open_unlearning_r":
            columns[column] = relearning(attacked_oracle - oracle, attacked_unlearned - unlearned)
            note = "" if columns[column] is not None else f"{column} undefined: the unlearned model learned nothing"
        else:
            columns[column] = quantisation(unlearned, attacked_unlearned)
            note = "" if columns[column] is not None else f"{column} undefined: the score after it is 0"
    return {**columns, "note": note}


def relearning(oracle_gain: float, unlearned_gain: float) -> float | None:
    """R, of what relearning adds to oracle's and unlearned model's score; None where the latter gains nothing."""
    return min(oracle_gain / unlearned_gain, 1.0) if unlearned_gain > 0 else None


def quantisation(before: float, after: float) -> float | None:
    """Q, of the unlearned model's score; None where it is 0 after quantisation."""
    return min(before / after, 1.0) if after > 0 else None
