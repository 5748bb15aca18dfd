"""States what a comparison found: which arm is closest to the oracle while utility is kept, and which collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.evaluation.equivalence import LEAST_UTILITY, Outcome
from erulab.reporting.arms import Arm, distinguishing_parts, draw_values, group_into_arms, short_arm_names
from erulab.reporting.intervals import Mean, mean_with_interval
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import interval, percent, signed
from erulab.reporting.utility import COLLAPSE
from erulab.reporting.verdict import judge_run


@dataclass(frozen=True)
class ArmSummary:
    """An arm's means over its worlds and seeds.

    name: what distinguishes it from the other arms.
    left, worst: knowledge left without an attack, and after the strongest one; None if no run can measure it.
    kept: share of the target's utility.
    """

    arm: Arm
    name: str
    left: Mean | None
    worst: Mean | None
    kept: Mean | None

    @property
    def collapsed(self) -> bool:
        return self.kept is not None and self.kept.value < COLLAPSE

    @property
    def words(self) -> str:
        """The arm's figures: `npo: knowledge left 0.12 [0.02, 0.22], after the strongest attack 0.40, utility 95 %`."""
        said = [f"knowledge left {_with_interval(self.left)}"] if self.left else []
        said += [f"after the strongest attack {_with_interval(self.worst)}"] if self.worst else []
        said += [f"utility kept {percent(self.kept.value)}"] if self.kept else []
        return f"{self.name} ({', '.join(said)})" if said else self.name


def arm_summaries(runs: Sequence[RunResult]) -> list[ArmSummary]:
    """Returns each arm's means, in the order of the arms' first runs."""
    arms = group_into_arms(runs)
    return [
        ArmSummary(
            arm,
            name,
            mean_with_interval(draw_values(arm, _left)),
            mean_with_interval(draw_values(arm, _worst)),
            mean_with_interval(draw_values(arm, lambda run: judge_run(run).utility.ratio)),
        )
        for arm, name in zip(arms, short_arm_names(arms), strict=True)
    ]


def is_measurable(run: RunResult) -> bool:
    """Whether the target knows enough more than the oracle for knowledge left to mean something."""
    return judge_run(run).forgetting.outcome is not Outcome.unmeasurable


def _left(run: RunResult) -> float | None:
    return judge_run(run).forgetting.value if is_measurable(run) else None


def _worst(run: RunResult) -> float | None:
    return judge_run(run).worst.value if is_measurable(run) else None


def design_sentence(summaries: Sequence[ArmSummary]) -> str:
    """Returns how many runs and arms there are, and in what they differ."""
    runs = sum(len(summary.arm.runs) for summary in summaries)
    draws = sorted({len(summary.arm.draws) for summary in summaries})
    if len(summaries) == 1:
        return f"{'One run' if runs == 1 else f'{runs} runs'} of one arm: {summaries[0].name}"
    keys = dict.fromkeys(key for own in distinguishing_parts([one.arm for one in summaries]) for key in own)
    least, most = draws[0], draws[-1]
    each = "one world and seed" if most == 1 else f"{least if least == most else f'{least} to {most}'} worlds and seeds"
    return f"{runs} runs in {len(summaries)} arms that differ in {', '.join(keys) or 'nothing'}; {each} per arm"


def finding_sentence(summaries: Sequence[ArmSummary]) -> str:
    """Returns what was found, in one sentence: the arm closest to the oracle among those that keep the utility."""
    known = [one for one in summaries if one.left is not None and one.kept is not None]
    fallen = [one.name for one in summaries if one.collapsed]
    lost = f"; collapsed: {', '.join(fallen)}" if fallen else ""
    if not known:
        return f"No run measures both knowledge left and utility; the verdicts say why{lost}."
    if len(summaries) == 1:
        return f"{known[0].words}{lost}."
    keeping = [one for one in known if one.kept is not None and one.kept.value >= LEAST_UTILITY]
    if not keeping:
        most = max(known, key=lambda one: one.kept.value if one.kept else 0.0)
        return f"No arm keeps {percent(LEAST_UTILITY)} of the utility; most is kept by {most.words}{lost}."
    best = min(keeping, key=lambda one: abs(one.left.value) if one.left else 0.0)
    among = f"of {len(keeping)} arms that keep" if len(keeping) > 1 else "the only arm that keeps"
    return f"Closest to the oracle, {among} {percent(LEAST_UTILITY)} of the utility: {best.words}{lost}."


def _with_interval(mean: Mean) -> str:
    # The t-interval of two values is so wide that it says nothing; the table shows both values.
    return f"{signed(mean.value)} {interval(mean.low, mean.high) if mean.n > 2 else ''}".rstrip()
