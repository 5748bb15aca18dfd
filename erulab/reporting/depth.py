"""States how deep in the network a run's facts are forgotten (Unlearning Depth Score)."""

from __future__ import annotations

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import interval, number, short


def depth_sentence(run: RunResult) -> str:
    """Returns the unlearned model's depth score in a sentence, or why it has none; "" if it was not asked for."""
    scores = run.scores.get("unlearned", {})
    value = number(scores.get("uds"))
    low, high = map(number, run.intervals.get("unlearned", {}).get("uds", (None, None)))
    if value is None:
        note = scores.get("uds_note")
        return f"Depth (UDS) not measured: {note}." if note else ""
    return (
        f"Depth (UDS) {short(value)} {interval(low, high)} on {scores.get('uds/n')} rows: the share of a forgotten "
        "fact that the target can no longer read from the unlearned model's hidden states; 0: it reads all of it, "
        "1: as little as from the oracle's."
    )
