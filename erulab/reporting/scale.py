"""The scale of a verdict: knowledge left from oracle (0) to target (1), before and after the strongest attack."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import interval, signed
from erulab.reporting.verdict import judge_run, margin_of

LEAST, MOST = -1.0, 2.0  # knowledge left beyond these is drawn at the edge of the scale


@dataclass(frozen=True)
class ScaleRow:
    """One measurement on the scale; places in percent of its width."""

    label: str
    shown: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """A scale from oracle to target; places in percent of its width."""

    rows: tuple[ScaleRow, ...]
    oracle: float
    target: float
    margin_low: float
    margin_high: float


def verdict_scale(run: RunResult) -> Scale | None:
    """Returns the scale of a run; None if knowledge left is not known, so that there is nothing to show."""
    judged = judge_run(run)
    # (label, knowledge left, low, high)
    found: list[tuple[str, float, float, float]] = []
    left = judged.forgetting.left
    if left is not None:
        found.append(("no attack", left.value, left.low, left.high))
    elif not judged.scored and (before := judged.worst.before) is not None:  # of the attacks' rows: no interval
        found.append(("no attack", before, before, before))
    if (worst := judged.worst).left is not None:
        found.append((f"after the strongest attack, {worst.attack}", worst.left.value, worst.left.low, worst.left.high))
    if not found:
        return None
    margin = margin_of(run)
    ends = [end for _, *values in found for end in values]
    least, most = max(LEAST, min(-0.25, *ends) - 0.05), min(MOST, max(1.1, *ends) + 0.05)

    def place(value: float) -> float:
        return round(100 * (min(max(value, least), most) - least) / (most - least), 2)

    rows = tuple(
        ScaleRow(
            label,
            f"{signed(value)} {interval(low, high) if low < high else ''}".rstrip(),
            place(value),
            place(low),
            place(high),
        )
        for label, value, low, high in found
    )
    return Scale(rows, place(0), place(1), place(-margin), place(margin))
