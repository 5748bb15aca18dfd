"""Membership inference: whether forgotten rows still look like training text, compared with rows no model learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.data.measures import Separation, Texts
from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation.suites import forget_suites
from erulab.registry import attacks

if TYPE_CHECKING:
    import numpy as np

    from erulab.evaluation.row_score import RowScore
    from erulab.models.loaded import LoadedModel
else:
    np = lazy_loader.load("numpy")

# Figure -> the membership score it is computed from, as `evaluation.protocols.texts` names it.
SCORES = {"mia_loss": "nll", "mia_zlib": "zlib", "mia_min_k": "min_k", "mia_min_k_plus_plus": "min_k_plus_plus"}


@dataclass
class MiaOptions:
    name: str = "mia"


@attacks.register(
    "mia",
    MiaOptions,
    paper="Carlini 2021, arXiv:2012.07805; Shi 2023, arXiv:2310.16789; Zhang 2024, arXiv:2404.02936",
    needs="rows that no model learned",
)
class Mia(Attack):
    """Membership inference by loss, zlib, min-k and min-k++ against rows that no model learned.

    A row's figure is the share of those rows that look less like a member than the row does. That is 1 minus the AUC of
    `membership.auc`, so it is higher for a model that remembers. If the benchmark pairs its own texts, they are
    compared with the other texts of the pair (RWKU: its retain texts).
    """

    own_figures = True

    def __init__(self, options: MiaOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        if not _suite_pairs(benchmark):
            raise Inapplicable(
                "membership inference needs rows like the forget rows that no model learned (a suite holdout, "
                "strangers or unseen), and none is measured; see dataset and evaluation.suites"
            )
        return [{}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return tuple(members for members, _ in _suite_pairs(benchmark))

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        yield Attempt({}, partial(_score_membership, subject, lab))


def _score_membership(subject: LoadedModel, lab: Lab, suites: Sequence[Suite]) -> list[RowScore]:
    from erulab.evaluation.membership import auc  # not at the top: composition needs no numpy

    holdout_of = {members.name: holdout for members, holdout in _suite_pairs(lab.benchmark)}
    scored = lab.score(subject, [replace(suite, measure=Texts()) for suite in suites])
    holdouts = {holdout.name: replace(holdout, measure=Texts()) for holdout in holdout_of.values()}
    others = lab.score(subject, list(holdouts.values()))

    def share(row: RowScore, score: str) -> float:
        apart = [other.figures[score] for other in others if other.suite == holdout_of[row.suite].name]
        return 1 - auc(np.array([row.figures[score]]), np.array(apart))

    return [replace(row, figures={name: share(row, score) for name, score in SCORES.items()}) for row in scored]


def _suite_pairs(benchmark: Benchmark) -> list[tuple[Suite, Suite]]:
    """Returns pairs of suites to tell apart: the benchmark's own pairs, or each forget suite with an unseen suite.

    It is the unseen suite that is made of the same words as the forget suite, otherwise the first other one.
    """
    suites = {suite.name: suite for suite in benchmark.suites if suite.rows}
    named = [(one.forget, one.holdout) for one in benchmark.summaries if isinstance(one, Separation)]
    if not named:
        unseen = [suite for suite in suites.values() if suite.role is Role.UNSEEN]
        alike = {suite.like: suite.name for suite in reversed(unseen)}
        named = [(suite.name, alike.get(suite.name, alike.get("", ""))) for suite in forget_suites(benchmark)]
    return [(suites[members], suites[others]) for members, others in named if {members, others} <= suites.keys()]
