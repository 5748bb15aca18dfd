"""The scores from which rows of attacks.json are computed: one setting of one attack, and the models without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erulab.attacks.base import Setting
from erulab.attacks.judging.trace import AttemptResult
from erulab.data.rows import Suite
from erulab.evaluation.row_score import RowScore

MODELS = ("target", "unlearned", "oracle")


@dataclass(frozen=True)
class UnattackedScores:
    """One model's scores without an attack: of forget rows, and of the retain rows that tell its utility."""

    rows: Sequence[RowScore]
    utility: Sequence[RowScore]


@dataclass(frozen=True)
class AttackedSetting:
    """One setting of one attack, after it ran on all three models.

    attack: the attack's name in the run, such as relearn_retain; kind: its registered name, such as relearn.
    suites: every suite on which some repeat is scored.
    utility: the suite that tells utility.
    results: model -> repeat -> attempts.
    one_attempt_for_all_models: see `Attack`.
    margin: the largest knowledge left that does not matter.
    """

    attack: str
    kind: str
    setting: Setting
    suites: Sequence[Suite]
    utility: Suite
    results: Mapping[str, Sequence[Sequence[AttemptResult]]]
    margin: float
    one_attempt_for_all_models: bool = True
