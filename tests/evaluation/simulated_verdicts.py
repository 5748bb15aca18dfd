"""How often the verdict says each of its words when the truth is known, by simulation.

`python -m tests.evaluation.simulated_verdicts` prints the table of erulab/reporting/README.md.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from erulab.evaluation.equivalence import Bounds, Outcome, judge_knowledge_left
from erulab.evaluation.knowledge import knowledge_left
from erulab.evaluation.measurable import why_not_measurable
from erulab.evaluation.row_score import RowScore

MARGIN = 0.1


@dataclass(frozen=True)
class Kind:
    """Log-odds of a data set's facts, nats: the target's and the oracle's mean, and the deviations between facts.

    fact: of what a fact adds in all three models. model: of what each model adds to a fact by itself.
    """

    target: float
    oracle: float
    fact: float
    model: float


DATA = {
    "embedded": Kind(target=3.3, oracle=-4.3, fact=1.5, model=1.5),  # world 0: a gap of 7.6 nats
    "tofu": Kind(target=1.1, oracle=0.7, fact=0.6, model=0.6),  # SmolLM2 on forget01: 0.4 nats per token
}
SIMULATED = {**DATA, "ignorant": Kind(target=0.0, oracle=0.0, fact=1.0, model=1.0)}


def share_of_verdicts(kind: str, facts: int, true: float, *, runs: int, seed: int = 0) -> dict[Outcome, float]:
    """Simulates runs and returns how often each word is said.

    Args:
        kind: name in SIMULATED.
        facts: number of facts, one row each.
        true: knowledge left in truth.
        runs: number of simulated runs.
    """
    rng = np.random.default_rng([seed, facts, round(1000 * true), len(kind)])
    return {
        word: n / runs for word, n in Counter(_verdict(SIMULATED[kind], facts, true, rng) for _ in range(runs)).items()
    }


def _verdict(kind: Kind, facts: int, true: float, rng: np.random.Generator) -> Outcome:
    shared = kind.fact * rng.standard_normal(facts)
    middle = {"target": kind.target, "oracle": kind.oracle}
    middle["unlearned"] = kind.oracle + true * (kind.target - kind.oracle)
    drawn = {model: mean + shared + kind.model * rng.standard_normal(facts) for model, mean in middle.items()}
    rows = {
        model: [
            RowScore(f"{i}", "forget", "forget", f"{i}", "", {"log_odds": x, "choice": float(x > 0)})
            for i, x in enumerate(values)
        ]
        for model, values in drawn.items()
    }
    left = knowledge_left(drawn["unlearned"], drawn["target"], drawn["oracle"], [row.fact for row in rows["target"]])
    if why_not_measurable(rows["target"], rows["oracle"]) or left.value is None:
        return Outcome.unmeasurable
    assert None not in (left.low, left.high, left.low90, left.high90)
    return judge_knowledge_left(Bounds(left.value, left.low, left.high, left.low90, left.high90), MARGIN)  # type: ignore[arg-type]


def table(runs: int) -> str:
    """Returns the rates as a Markdown table: one row per data set and number of facts."""
    heading = "| data set, facts | forgotten at 0, at 0.1 | forgotten at 0.2, at 0.5 | remains at 0.2, at 0.5 |"
    lines = [heading, "| --- | --- | --- | --- |"]
    for kind, facts in itertools.product(DATA, (20, 40, 100, 200)):
        found = {true: share_of_verdicts(kind, facts, true, runs=runs, seed=1) for true in (0.0, 0.1, 0.2, 0.5)}
        cells = [
            _rates([found[true].get(word, 0.0) for true in truths])
            for word, *truths in (
                (Outcome.forgotten, 0.0, 0.1),
                (Outcome.forgotten, 0.2, 0.5),
                (Outcome.remains, 0.2, 0.5),
            )
        ]
        lines.append(f"| {kind}, {facts} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rates(shares: list[float]) -> str:
    return ", ".join(f"{share:.1%}".replace("%", " %") for share in shares)


if __name__ == "__main__":
    print(table(runs=1000))
