"""The verdict on a run, as data and in sentences: forgotten or not, utility kept, what attacks bring back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erulab.evaluation.equivalence import Kept, Outcome, Withstood
from erulab.options import ReportOptions
from erulab.reporting.forgetting import Forgetting, judge_forgetting
from erulab.reporting.kept_step import KeptStep, read_kept_step
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number, signed
from erulab.reporting.robustness import Robustness, WorstCase, judge_attacks, knowledge_left_before_attacks, worst_case
from erulab.reporting.utility import Utility, read_utility
from erulab.roles import oracles_among

MARGIN = ReportOptions().margin
ALONE = (
    "only one model was scored: whether it has forgotten something is not judged",
    "for a verdict, name the model before unlearning (model.target=FOLDER) and one that never saw the forget set "
    "(model.oracle=FOLDER): knowledge left, forget quality, PrivLeak and utility kept compare with these",
)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run: its parts, and the sentences that state them."""

    forgetting: Forgetting
    utility: Utility
    worst: WorstCase
    robustness: tuple[Robustness, ...]
    kept: KeptStep | None = None  # None: the model after the last step
    alone: bool = False  # only one model was scored, so there is no model to compare it with
    scored: bool = True  # False: there are attacks, but no scores

    @property
    def collapsed(self) -> bool:
        return self.utility.collapsed

    @property
    def good(self) -> bool:
        """Whether everything was shown: forgotten, utility kept, and robust against the strongest attack."""
        forgotten = self.forgetting.outcome is Outcome.forgotten
        return forgotten and self.utility.outcome is Kept.kept and self.worst.outcome is Withstood.robust

    @property
    def label(self) -> str:
        """The verdict in a word or two, for a table."""
        if self.alone:
            return "not judged"
        label = self.forgetting.outcome.value
        return f"COLLAPSED, {label}" if self.collapsed else label

    @property
    def sentences(self) -> tuple[str, ...]:
        if self.alone:
            return ALONE
        attacks = [self.worst.words, *(attack.words for attack in self.robustness)]
        attacks += [remark for attack in self.robustness for remark in attack.remarks]
        if not self.scored:
            return (*attacks, self._unscored)
        kept = [self.kept.words] if self.kept is not None else []
        parts = [self.forgetting.words, self.utility.words, *attacks, *kept]
        if self.collapsed:
            parts.insert(0, "COLLAPSED: the model lost more than half of its utility, so that it forgot proves nothing")
        return tuple(parts)

    @property
    def words(self) -> str:
        return "; ".join(self.sentences)

    @property
    def _unscored(self) -> str:
        sentence = "not scored: forgetting and utility are not judged"
        before = self.worst.before
        if before is None:
            return sentence
        return f"{sentence}; on the attacks' rows knowledge left without an attack is {signed(before)}"


def margin_of(run: RunResult) -> float:
    """Returns the margin that a run was judged with: its `report.margin`."""
    margin = number((run.config.get("report") or {}).get("margin"))
    return MARGIN if margin is None else margin


def judge_run(run: RunResult) -> Verdict:
    """Returns the verdict on a run that was read with `load_run`."""
    return judge(run.scores, run.attacks, margin_of(run))


def judge(scores: dict[str, dict[str, Any]], attacks: list[dict[str, Any]], margin: float = MARGIN) -> Verdict:
    """Returns the verdict from the contents of scores.json and attacks.json.

    Args:
        scores: model -> figure -> value.
        attacks: rows, each an attack in one setting on one metric.
        margin: differences up to this share of what unlearning should remove do not matter.
    """
    kept = read_kept_step(scores.get("unlearned", {}))
    forgetting = judge_forgetting(scores, margin, half=kept is not None)
    scored = bool(scores) or not attacks
    # Attacks compare with the first oracle only, knowledge left in scores.json with the mean of all.
    alike = scored and len(oracles_among(scores)) < 2
    before = forgetting.value if alike else knowledge_left_before_attacks(attacks)
    # A target that does not know the facts makes every model look robust. Without such facts (RWKU, MUSE) attacks are
    # judged by figures of their own.
    measurable = forgetting.outcome is not Outcome.unmeasurable or not (scored and forgetting.facts)
    worst = worst_case(attacks, before, margin, measurable=measurable)
    alone = len(scores) == 1 and not attacks
    judged = judge_attacks(attacks, margin, measurable=measurable)
    return Verdict(forgetting, read_utility(scores), worst, judged, kept, alone=alone, scored=scored)
