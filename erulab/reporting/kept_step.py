"""Which step of an unlearning is reported, if the best of several was kept (trainer.keep=best)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.reporting.numbers import number, percent, signed

KEPT = "kept/"  # prefix of its figures in scores.json


@dataclass(frozen=True)
class KeptStep:
    """The step whose model is reported, and how it was judged by the facts that chose it, which are not reported.

    steps: of the whole unlearning.
    facts: number of the facts that chose it.
    knowledge: knowledge left (K) of these facts; None if it was not finite.
    utility, least: share of the target's utility that the model keeps, and the share that was asked for.
    """

    step: int
    steps: int
    facts: int
    knowledge: float | None
    utility: float
    least: float

    @property
    def words(self) -> str:
        kept = f"kept step {self.step} of {self.steps}"
        left = "unknown" if self.knowledge is None else signed(self.knowledge)
        judged = f"on {self.facts} facts that are not reported: knowledge left {left}"
        if self.utility >= self.least:
            return f"{kept}, the best {judged}, utility kept {percent(self.utility)}"
        return (
            f"{kept}: no evaluated step keeps {percent(self.least)} of the utility, and this one keeps the most, "
            f"{percent(self.utility)} ({judged})"
        )


def read_kept_step(unlearned: Mapping[str, Any]) -> KeptStep | None:
    """Returns which step the unlearned model is of; None if it is the model after the last step.

    Args:
        unlearned: its figures in scores.json.
    """
    values = {name: number(unlearned.get(f"{KEPT}{name}")) for name in ("step", "steps", "facts", "utility")}
    least = number(unlearned.get(f"{KEPT}least_utility"))
    step, steps, facts, utility = values.values()
    if step is None or steps is None or facts is None or utility is None or least is None:
        return None
    return KeptStep(int(step), int(steps), int(facts), number(unlearned.get(f"{KEPT}knowledge_left")), utility, least)
