"""Knowledge left against utility along an unlearning run, measured every `trainer.eval_every` steps.

Pure functions of metrics.jsonl and scores.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.shown_figures import row_count

PREFIX = "eval/"
UNREHEARSED = "retain_unrehearsed"
LEVEL = 0.97  # share of the target's utility at which methods are compared


@dataclass(frozen=True)
class Point:
    """Knowledge left, and utility as a share of the target's, after `step` optimizer steps."""

    step: int
    knowledge: float
    utility: float


def run_trajectory(run: RunResult) -> tuple[Point, ...]:
    """Returns the trajectory of a run; empty if none was measured, or target or oracle has no scores."""
    return trajectory_points(run.metrics, run.scores.get("target", {}), run.scores.get("oracle", {}))


def trajectory_points(
    metrics: Sequence[Mapping[str, Any]], target: Mapping[str, Any], oracle: Mapping[str, Any]
) -> tuple[Point, ...]:
    """Returns knowledge left and utility before the first step, where both are 1, and after each measured step.

    Knowledge left is (model - oracle) / (target - oracle) of log-odds, each the mean over all rows of the forget
    suites. Utility is the share of rows of a retain suite whose true value is chosen, relative to the target's. The
    suite is `retain_unrehearsed` if it is measured, otherwise the first one.

    Args:
        metrics: lines of metrics.jsonl with `eval/<suite>/log_odds` (forget suites) and `eval/<suite>/choice`.
        target, oracle: their figures in scores.json.
    """
    forget = _measured_suites(metrics, "log_odds")
    kept = [suite for suite in _measured_suites(metrics, "choice") if suite not in forget]
    retain = UNREHEARSED if UNREHEARSED in kept else next(iter(kept), None)
    before = number(target.get(f"{retain}/choice"))
    counts = {suite: number(row_count(target, f"{suite}/log_odds")) or 0.0 for suite in forget}
    top = _pooled_log_odds(target, counts, "")
    bottom = _pooled_log_odds(oracle, counts, "")
    if top is None or bottom is None or not top > bottom or not before:
        return ()
    points = [Point(0, 1.0, 1.0)]  # the target
    for line in metrics:
        known = _pooled_log_odds(line, counts, PREFIX)
        utility = number(line.get(f"{PREFIX}{retain}/choice"))
        if known is not None and utility is not None:
            # A line is written after its step, and steps count from 0.
            points.append(Point(int(line["step"]) + 1, (known - bottom) / (top - bottom), utility / before))
    return tuple(sorted(points, key=lambda point: point.step)) if len(points) > 1 else ()


def least_knowledge_at(points: Sequence[Point], utility: float) -> float | None:
    """Returns the least knowledge left while at least this utility is kept, on straight lines between measured steps.

    Returns None if there are no points, or less utility is kept throughout.
    """
    found = [point.knowledge for point in points if point.utility >= utility]
    for earlier, later in zip(points, points[1:], strict=False):
        low, high = sorted((earlier.utility, later.utility))
        if low < utility < high:
            share = (utility - earlier.utility) / (later.utility - earlier.utility)
            found.append(earlier.knowledge + share * (later.knowledge - earlier.knowledge))
    return min(found, default=None)


def _measured_suites(metrics: Iterable[Mapping[str, Any]], figure: str) -> list[str]:
    """Returns the suites on which a figure was measured along the run."""
    names = dict.fromkeys(name for line in metrics for name in line if name.startswith(PREFIX))
    return [name.removeprefix(PREFIX).removesuffix(f"/{figure}") for name in names if name.endswith(f"/{figure}")]


def _pooled_log_odds(figures: Mapping[str, Any], counts: Mapping[str, float], prefix: str) -> float | None:
    """Returns the mean log-odds over the rows of all suites; None if a suite lacks it or there are no rows."""
    values = {suite: number(figures.get(f"{prefix}{suite}/log_odds")) for suite in counts}
    rows = sum(counts.values())
    if not rows or any(value is None for value in values.values()):
        return None
    return sum(counts[suite] * value for suite, value in values.items() if value is not None) / rows
