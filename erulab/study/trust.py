"""Whether a figure can be trusted: pure functions of the figures of models whose knowledge is known.

All figures are turned so that a higher value means more knowledge. The sign is that of the mean difference between
target and oracle on calibration runs, which take part in nothing else.

Faithfulness is the AUC of models that know against models that do not: P(m_knows > m_not), ties count one half.

Robustness compares a figure before (b) and after (a) an intervention, in units of what unlearning should remove by
this figure, the gap g = m_target - m_oracle of the same run:

    R = 1 - clip(((m_u^a - m_u^b) - (m_oracle^a - m_oracle^b)) / g, 0, 1)   relearning on the forget rows
    Q = 1 - clip((m_u^a - m_u^b) / g, 0, 1)                                 quantisation

Each is averaged over the models u; robustness is the harmonic mean of both averages. 1: the intervention brought
nothing back that the figure had not shown; 0: it brought back a whole target.

Source: OpenUnlearning (arXiv:2506.12618, section 4) has both ideas, with R = min(gain_oracle / gain_u, 1) and
Q = min(m_u^b / m_u^a, 1). Their ratios need scores in [0, 1] and are noise where a model gains little; ours have one
denominator for all models, and do not change if a figure is scaled or shifted. Theirs are computed beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from erulab.attacks.judging.open_unlearning import quantisation_ratio, relearning_ratio

Figures = Mapping[str, float]
LEVEL = 0.95  # of the bootstrap's interval


@dataclass(frozen=True)
class JudgedModel:
    """One model, with what is known about it and its figures.

    run: the run of whose target it was made; models of one run are drawn together by the bootstrap.
    role: "target", "oracle", "hider" or "unlearned".
    name: what made it, such as "mask" or "method=npo".
    knows: whether it knows the forget set; None if that is the question.
    figures: before any intervention.
    relearned, quantised: figures after it; None if the model had none.
    """

    run: str
    role: str
    name: str
    knows: bool | None
    figures: Figures
    relearned: Figures | None = None
    quantised: Figures | None = None


@dataclass(frozen=True)
class Auc:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FigureTrust:
    """What a study found about one figure in one setting. None: undefined, because no model has what it needs.

    direction: 1 if a higher value means more knowledge, -1 if a lower one does.
    faithfulness: without hiders in the pool of models that know. with_hiders: with them.
    relearning, quantisation: R and Q. robustness: their harmonic mean.
    relearning_ratio, quantisation_ratio: OpenUnlearning's R and Q, for scores in [0, 1].
    """

    direction: int
    faithfulness: Auc
    with_hiders: Auc
    relearning: float | None
    quantisation: float | None
    robustness: float | None
    relearning_ratio: float | None
    quantisation_ratio: float | None

    def failed(self, faithfulness: float, robustness: float) -> bool:
        """Returns whether the figure is below a threshold; what is undefined is not below."""
        return self.with_hiders.value < faithfulness or (self.robustness is not None and self.robustness < robustness)


def common_figures(models: Sequence[JudgedModel]) -> list[str]:
    """Returns the names of the figures that every model has with a finite value, in the first model's order."""
    parts = [part for model in models for part in (model.figures, model.relearned, model.quantised) if part is not None]
    return [
        name
        for name in parts[0]
        if all(isinstance(part.get(name), int | float) and math.isfinite(part[name]) for part in parts)
    ]


def figure_direction(name: str, calibration: Sequence[JudgedModel]) -> int:
    """Returns 1 if targets have the higher mean, otherwise -1; 0 if both means are equal."""
    means = [np.mean([m.figures[name] for m in calibration if m.role == role]) for role in ("target", "oracle")]
    return int(np.sign(means[0] - means[1]))


def judge_figure(
    name: str, direction: int, models: Sequence[JudgedModel], robust_of: Sequence[JudgedModel], *, draws: int, seed: int
) -> FigureTrust:
    """Judges one figure.

    Args:
        name: of the figure.
        direction: as of `figure_direction`.
        models: of all pools; target and oracle of a run have the names "target" and "oracle".
        robust_of: the models u of R and Q, among `models`.
        draws, seed: of the bootstrap over runs.
    """
    knows = [m for m in models if m.knows]
    lacks = [m for m in models if m.knows is False]
    frank = [m for m in knows if m.role != "hider"]
    kept, rounded = _robustness(name, direction, models, robust_of)
    kept_ratio, rounded_ratio = _open_unlearning(name, direction, models, robust_of)
    both = None if kept is None or rounded is None else _harmonic_mean(kept, rounded)
    return FigureTrust(
        direction=direction,
        faithfulness=_auc(name, direction, frank, lacks, draws, seed),
        with_hiders=_auc(name, direction, knows, lacks, draws, seed),
        relearning=kept,
        quantisation=rounded,
        robustness=both,
        relearning_ratio=kept_ratio,
        quantisation_ratio=rounded_ratio,
    )


def _auc(
    name: str, direction: int, knows: Sequence[JudgedModel], lacks: Sequence[JudgedModel], draws: int, seed: int
) -> Auc:
    """Computes the AUC and its interval by a bootstrap over runs, whose models are drawn together."""
    runs = sorted({model.run for model in (*knows, *lacks)})
    wins, pairs = np.zeros((len(runs), len(runs))), np.zeros((len(runs), len(runs)))
    for one in knows:
        for other in lacks:
            place = runs.index(one.run), runs.index(other.run)
            difference = direction * (one.figures[name] - other.figures[name])
            wins[place] += 0.5 if difference == 0 else float(difference > 0)
            pairs[place] += 1
    drawn = np.random.default_rng(seed).multinomial(len(runs), [1 / len(runs)] * len(runs), size=draws)
    count = np.einsum("di,ij,dj->d", drawn, pairs, drawn)
    values = np.einsum("di,ij,dj->d", drawn, wins, drawn)[count > 0] / count[count > 0]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Auc(float(wins.sum() / pairs.sum()), float(low), float(high))


def _robustness(
    name: str, direction: int, models: Sequence[JudgedModel], robust_of: Sequence[JudgedModel]
) -> tuple[float | None, float | None]:
    """Returns R and Q, each a mean over the models that have it."""
    relearning, quantisation = [], []
    for model in robust_of:
        target, oracle = (_named(models, model.run, role) for role in ("target", "oracle"))
        gap = direction * (target.figures[name] - oracle.figures[name])
        if gap <= 0:
            continue  # the figure calls this target less knowing than its oracle: nothing can be a share of that
        if model.relearned is not None and oracle.relearned is not None:
            gain = direction * (model.relearned[name] - model.figures[name])
            taught = direction * (oracle.relearned[name] - oracle.figures[name])
            relearning.append(1 - float(np.clip((gain - taught) / gap, 0, 1)))
        if model.quantised is not None:
            back = direction * (model.quantised[name] - model.figures[name])
            quantisation.append(1 - float(np.clip(back / gap, 0, 1)))
    return _mean(relearning), _mean(quantisation)


def _open_unlearning(
    name: str, direction: int, models: Sequence[JudgedModel], robust_of: Sequence[JudgedModel]
) -> tuple[float | None, float | None]:
    """Returns OpenUnlearning's R and Q as means over the models where they are defined; None for other scores."""
    parts = [part for model in models for part in (model.figures, model.relearned, model.quantised) if part is not None]
    if not all(0 <= part[name] <= 1 for part in parts):
        return None, None

    def turned(part: Figures) -> float:
        return part[name] if direction > 0 else 1 - part[name]

    relearning, quantisation = [], []
    for model in robust_of:
        oracle = _named(models, model.run, "oracle")
        if model.relearned is not None and oracle.relearned is not None:
            taught = turned(oracle.relearned) - turned(oracle.figures)
            relearning.append(relearning_ratio(taught, turned(model.relearned) - turned(model.figures)))
        if model.quantised is not None:
            quantisation.append(quantisation_ratio(turned(model.figures), turned(model.quantised)))
    return _mean(relearning), _mean(quantisation)


def _named(models: Sequence[JudgedModel], run: str, role: str) -> JudgedModel:
    return next(model for model in models if model.run == run and model.name == role)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _harmonic_mean(one: float, other: float) -> float:
    return 0.0 if min(one, other) <= 0 else 2 / (1 / one + 1 / other)
