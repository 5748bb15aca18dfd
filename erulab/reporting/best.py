"""Which value of a figure is the best of several, where that can be said at all."""

from __future__ import annotations

from collections.abc import Sequence

from erulab.reporting.numbers import signed

LEFT = "knowledge_left"
# The more the better: knowledge that must stay.
HIGHER = ("utility_kept", "model_utility", "forget_quality")
KEPT_SUITES = ("retain", "retain_unrehearsed", "general", "neighbor_all", "knowmem_r", "mmlu")
KEPT_FIGURES = ("choice", "exact_match", "probability", "rouge", "rouge_f1", "rwku_recall", "accuracy", "judged")


def best_places(
    name: str, values: Sequence[float | None], collapsed: Sequence[bool], measurable: Sequence[bool]
) -> set[int]:
    """Returns the places of the best values: of all with the same two digits, and of none if all have them.

    Knowledge left is best nearest to 0, because a model that knows less than the oracle is no success either. A model
    that has collapsed is never the best. Of other figures of forget suites the best is the oracle's, which a table does
    not know.

    Args:
        name: of the figure, as in scores.json or attacks.json.
        values: one per model; None where a model has none.
        collapsed: for each model, whether it lost more than half of its utility.
        measurable: for each model, whether its knowledge left means something.
    """
    suite, _, figure = name.rpartition("/")
    standing = {place: v for place, v in enumerate(values) if v is not None and not collapsed[place]}
    if name == LEFT or figure == LEFT:
        rate = {place: -abs(round(v, 2)) for place, v in standing.items() if measurable[place]}
    elif name in HIGHER or (suite in KEPT_SUITES and figure in KEPT_FIGURES):
        rate = {place: float(signed(v)) for place, v in standing.items()}
    else:
        return set()
    best = max(rate.values(), default=0.0)
    found = {place for place, value in rate.items() if value == best}
    return found if len(found) < len(rate) else set()
