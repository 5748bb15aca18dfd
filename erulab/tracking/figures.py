"""Which results of a run are sent when it ends: the verdict and every attack, as figures and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from erulab.evaluation.equivalence import Bounds, Outcome
from erulab.redaction import redacted
from erulab.reporting import Verdict, judge_run, load_run
from erulab.rundir import RunDir


@dataclass(frozen=True)
class Results:
    """What a tracker gets at the end of a run; empty where nothing was scored or attacked.

    figures: name -> number or word; `verdict/...` and `attack/<name>/...`.
    words: the verdict in words.
    """

    figures: dict[str, Any]
    words: str = ""
    collapsed: bool = False
    scores: Mapping[str, Any] = field(default_factory=dict)  # the content of scores.json
    attacks: tuple[dict[str, Any], ...] = ()  # the rows of attacks.json


def read_results(rundir: RunDir) -> Results:
    """Reads the results that are in a run folder."""
    run = load_run(rundir.path)
    if not run.scores and not run.attacks:
        return Results({})
    judged = judge_run(run)
    figures = redacted(verdict_figures(judged))
    return Results(
        figures, str(redacted(judged.words)), judged.collapsed, redacted(run.scores), tuple(redacted(run.attacks))
    )


def verdict_figures(judged: Verdict) -> dict[str, Any]:
    """Returns the verdict as flat figures; what is not known is left out, so that no panel draws it."""
    outcome, worst = judged.forgetting.outcome, judged.worst
    # Of a target that does not know the facts, knowledge left is noise, and a panel would draw it beside the others.
    left = None if outcome is Outcome.unmeasurable else judged.forgetting.left
    figures: dict[str, Any] = {f"verdict/{name}": value for name, value in _bounds(left).items()}
    figures |= {
        "verdict/outcome": outcome.value,
        "verdict/utility_kept": judged.utility.ratio,
        "verdict/collapsed": judged.collapsed,
    }
    for attack in judged.robustness:
        figures |= _attack_figures(attack.attack, attack.left, attack.outcome and attack.outcome.value)
    figures |= _attack_figures("worst", worst.left, worst.outcome and worst.outcome.value)
    figures["attack/worst/name"] = worst.attack or None
    return {name: value for name, value in figures.items() if value is not None}


def flat_figures(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested figures as one level; names are joined by `/`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_figures(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def only_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures that a chart can draw: finite numbers, and 0 or 1 for a truth value."""
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _attack_figures(name: str, left: Bounds | None, outcome: str | None) -> dict[str, Any]:
    figures: dict[str, Any] = {f"attack/{name}/{figure}": value for figure, value in _bounds(left).items()}
    return {**figures, f"attack/{name}/outcome": outcome}


def _bounds(left: Bounds | None) -> dict[str, float]:
    """Returns knowledge left with the ends of its 95 % interval."""
    return {} if left is None else {"knowledge_left": left.value, "low": left.low, "high": left.high}
