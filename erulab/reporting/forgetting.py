"""The verdict on forgetting: an equivalence test on knowledge left, as data and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.evaluation.equivalence import Bounds, Outcome, facts_that_decide, judge_knowledge_left
from erulab.reporting.bounds import read_bounds, with_interval, with_interval_90
from erulab.reporting.numbers import number, thousands

MODELS = ("target", "unlearned", "oracle")


@dataclass(frozen=True)
class Forgetting:
    """Knowledge left (K): the share of what unlearning should remove that is still there.

    left: K with its intervals, 1 as in the target, 0 as in the oracle, below 0 less than in the oracle; None if it is
        undefined.
    margin: the largest difference from the oracle that does not matter.
    facts: number of facts that it is measured on.
    half: whether these are half of them, because the others choose the step that is kept (`trainer.keep=best`).
    note: why it is not measurable.
    """

    outcome: Outcome
    left: Bounds | None
    margin: float
    facts: int | None = None
    half: bool = False
    note: str = ""

    @property
    def value(self) -> float | None:
        return None if self.left is None else self.left.value

    @property
    def words(self) -> str:
        if self.left is None or self.outcome is Outcome.unmeasurable:
            return f"not measurable: {self.note}"
        half = f", on the reported half of the facts, {self.facts}" if self.half else ""
        margin = f"{self.margin:.2f}"
        if self.outcome is Outcome.forgotten:
            return f"forgotten: knowledge left {with_interval_90(self.left)} within ±{margin}{half}"
        if self.outcome is Outcome.undecided:
            shown = with_interval_90(self.left)
            return f"undecided: knowledge left {shown}, which reaches beyond ±{margin}{half}; {self._needed}"
        shown = f"(knowledge left {with_interval(self.left)}, margin {margin}{half})"
        if self.outcome is Outcome.over:
            return f"over-forgotten: the model knows less than the oracle {shown}"
        return f"knowledge remains {shown}"

    @property
    def _needed(self) -> str:
        assert self.left is not None
        needed = None if self.facts is None else facts_that_decide(self.left, self.margin, self.facts)
        if needed is None:
            return "it lies so close to the margin that more facts would hardly decide"
        return f"about {thousands(needed)} facts would decide (now {self.facts})"


def judge_forgetting(scores: Mapping[str, Mapping[str, Any]], margin: float, *, half: bool) -> Forgetting:
    """Returns the verdict on forgetting from the contents of scores.json.

    Args:
        scores: model -> figure -> value.
        margin: see `Forgetting`.
        half: see `Forgetting`.
    """
    unlearned = scores.get("unlearned", {})
    left = read_bounds(unlearned, "knowledge_left", "knowledge_left_")
    count = number(unlearned.get("knowledge_left_facts"))
    facts = None if count is None else int(count)
    note = str(unlearned.get("knowledge_left_note") or "")
    if left is not None and not note:
        return Forgetting(judge_knowledge_left(left, margin), left, margin, facts, half)
    absent = [model for model in MODELS if model not in scores]
    if not note:
        note = f"no scores of the {', '.join(absent)}" if absent else "knowledge left is not defined on this data set"
    return Forgetting(Outcome.unmeasurable, left, margin, facts, half, note)
