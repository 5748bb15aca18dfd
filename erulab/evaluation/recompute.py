"""Recomputes TOFU's figures from the rows of a published log."""

from __future__ import annotations

import math
from dataclasses import dataclass

from erulab.errors import DataError
from erulab.evaluation import metrics
from erulab.evaluation.logs import Log, Quantity, RowSet, rows_apart

# Mean over the wrong answers' probabilities. Published figures and Forget Quality use the geometric mean.
MEANS = {"geometric": metrics.log_truth_ratio, "arithmetic": metrics.log_truth_ratio_arithmetic}
UTILITY = (RowSet.retain, RowSet.real_authors, RowSet.world_facts)


@dataclass(frozen=True)
class SetFigures:
    """The figures of one set over its n rows.

    truth_ratio: name of MEANS -> mean of min(R, 1/R) on forget rows, mean of max(0, 1 - R) on other sets.
    """

    n: int
    probability: float
    rouge: float
    truth_ratio: dict[str, float]


@dataclass(frozen=True)
class ForgetQuality:
    """The p-value of the Kolmogorov-Smirnov test on the truth ratios of the same n forget rows under two models."""

    p: float
    n: int


@dataclass(frozen=True)
class TofuFigures:
    """TOFU's figures of one model, computed from its log.

    truth_ratio_share: name of MEANS -> mean of P_right / (P_right + P_wrong) on forget rows.
    model_utility: name of MEANS -> Model Utility.
    forget_quality: None without a log of the retrained model.
    """

    sets: dict[RowSet, SetFigures]
    truth_ratio_share: dict[str, float]
    model_utility: dict[str, float]
    forget_quality: ForgetQuality | None


def recompute_figures(log: Log, retain_log: Log | None = None, limit: int | None = None) -> TofuFigures:
    """Computes TOFU's figures of one model from its log.

    Args:
        log: the model's log.
        retain_log: log of the model that learned the retain rows only. It adds Forget Quality; only its forget rows
            are read.
        limit: number of rows of each set that are kept; None keeps all.
    Raises:
        DataError: a log lacks rows, or the two logs have different forget rows.
    """
    sets = {rows: _set_figures(log, rows, limit) for rows in RowSet}
    share = {name: metrics.truth_ratio_share(_log_ratios(log, RowSet.forget, limit, name).values()) for name in MEANS}
    return TofuFigures(
        sets,
        truth_ratio_share=share,
        model_utility={name: _model_utility(sets, name) for name in MEANS},
        forget_quality=None if retain_log is None else _forget_quality(log, retain_log, limit),
    )


def _set_figures(log: Log, rows: RowSet, limit: int | None) -> SetFigures:
    answer, wrong, rouge = log.columns(rows, (Quantity.answer, Quantity.wrong, Quantity.rouge), limit)
    if rows in (RowSet.retain, RowSet.forget):
        probabilities = [math.exp(-nll) for (nll,) in answer.values()]
    else:
        probabilities = [metrics.probability_among(nll, wrong[row]) for row, (nll,) in answer.items()]
    aggregate = metrics.truth_ratio_forget if rows is RowSet.forget else metrics.truth_ratio_retain
    return SetFigures(
        n=len(answer),
        probability=math.fsum(probabilities) / len(probabilities),
        rouge=math.fsum(recall for (recall,) in rouge.values()) / len(rouge),
        truth_ratio={name: aggregate(_log_ratios(log, rows, limit, name).values()) for name in MEANS},
    )


def _log_ratios(log: Log, rows: RowSet, limit: int | None, mean: str) -> dict[int, float]:
    """Returns log R of each row, by row number."""
    right, wrong = log.columns(rows, (Quantity.right, Quantity.wrong), limit)
    return {row: MEANS[mean](nll, wrong[row]) for row, (nll,) in right.items()}


def _model_utility(sets: dict[RowSet, SetFigures], mean: str) -> float:
    used = [sets[rows] for rows in UTILITY]
    return metrics.harmonic_mean([v for s in used for v in (s.probability, s.rouge, s.truth_ratio[mean])])


def _forget_quality(log: Log, retain_log: Log, limit: int | None) -> ForgetQuality:
    mine, retrained = (_log_ratios(one, RowSet.forget, limit, "geometric") for one in (log, retain_log))
    if mine.keys() != retrained.keys():
        raise DataError(
            f"{log.path} and {retain_log.path} are not of the same forget rows: {rows_apart(mine, retrained)}; "
            "name logs of one split, and --rows N if one was cut to its first N"
        )
    return ForgetQuality(metrics.forget_quality_p_value(list(mine.values()), list(retrained.values())), len(mine))
