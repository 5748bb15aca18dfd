"""Figures that compare a model with target and oracle, and open-unlearning's aggregates. They are computed from other
figures, elementwise: from the single values of scores.json and from resampled ones alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from erulab.data.measures import Separation, Summary
from erulab.evaluation import membership
from erulab.evaluation.figures.combining import combined_harmonic_mean

Figure = TypeVar("Figure", float, NDArray[np.float64])

# sMIA -> the AUC it is computed from.
SCORES = {"loss": "nll", "zlib": "zlib", "min_k": "min_k", "min_k_plus_plus": "min_k_plus_plus"}
PRIVLEAK = "auc_min_k"  # the AUC from which MUSE computes PrivLeak
AGGREGATE = "aggregate"
COMPAT = "open_unlearning"  # prefix of the figures of evaluation.compat=open_unlearning
# Figures of forget rows that rise with memorisation; the aggregate is the harmonic mean of 1 minus each.
MEMORISATION = ("extraction_strength", "exact_memorization", "paraphrase_probability", "truth_ratio_share")
FLUENCY = "distinct_ngrams"


def membership_comparisons(
    own: Mapping[str, Figure],
    target: Mapping[str, Figure] | None,
    oracle: Mapping[str, Figure] | None,
    summaries: Sequence[Summary],
) -> dict[str, Figure]:
    """Returns `<name>/privleak` and `<name>/smia_<score>` of every separation of two suites.

    PrivLeak can use a published AUC in place of the oracle's; sMIA needs target and oracle.

    Args:
        own, target, oracle: the figures of the judged model, of the target and of the oracle; None: not scored.
    """
    result: dict[str, Figure] = {}
    for summary in summaries:
        if not isinstance(summary, Separation):
            continue
        leaking = f"{summary.name}/{PRIVLEAK}"
        if leaking in own:
            retrained = summary.retrained or (oracle or {}).get(leaking)
            if retrained is not None and np.any(retrained):
                result[f"{summary.name}/privleak"] = membership.priv_leak(own[leaking], retrained)
        for score, auc in SCORES.items():
            name = f"{summary.name}/auc_{auc}"
            if name in own and name in (target or {}) and name in (oracle or {}):
                found = membership.smia(own[name], target[name], oracle[name])  # type: ignore[index]
                if not np.isnan(found).all():
                    result[f"{summary.name}/smia_{score}"] = found
    return result


def aggregates(
    components: Mapping[str, Figure], figures: Mapping[str, Figure], summaries: Sequence[Summary]
) -> dict[str, Figure]:
    """Returns open-unlearning's aggregates, each in [0, 1], as far as their components are there.

    aggregate/memorisation: harmonic mean of 1 minus each of the memorisation figures; 1 if nothing is memorised.
    aggregate/privacy: harmonic mean of sMIA over loss, zlib, min-k and min-k++.
    aggregate/utility: harmonic mean of model utility and fluency.
    aggregate/all: harmonic mean of these three.

    With `evaluation.compat=open_unlearning` the same under its prefix, of its own memorisation figures and model
    utility. Membership inference and fluency are erulab's in both.

    Args:
        components: means over forget rows, of `forget_components`.
        figures: the model's other figures, with `model_utility` and `<name>/smia_<score>`.
    """
    separations = [summary.name for summary in summaries if isinstance(summary, Separation)]
    smia = [f"{separations[0]}/smia_{score}" for score in SCORES] if separations else []
    result: dict[str, Figure] = {}
    for prefix in ("", f"{COMPAT}/"):
        own: dict[str, Figure] = {}
        memorised = [f"{prefix}{name}" for name in MEMORISATION]
        if all(name in components for name in memorised):
            own["memorisation"] = combined_harmonic_mean([1 - components[name] for name in memorised])
        if smia and all(name in figures for name in smia):
            own["privacy"] = combined_harmonic_mean([figures[name] for name in smia])
        if f"{prefix}model_utility" in figures and FLUENCY in components:
            own["utility"] = combined_harmonic_mean([figures[f"{prefix}model_utility"], components[FLUENCY]])
        if len(own) == 3:
            own["all"] = combined_harmonic_mean(list(own.values()))
        if not prefix or "memorisation" in own:
            result |= {f"{prefix}{AGGREGATE}/{name}": value for name, value in own.items()}
    return result
