"""The table of what each stage cost."""

from __future__ import annotations

from typing import Any

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import MISSING, duration, gigabytes, number, percent, power, thousands
from erulab.reporting.rendering import Cell, Table

STAGES = ("target", "oracle", "unlearn", "evaluate", "attack", "report")
HEADINGS = ("stage", "state", "time to make", "tokens", "FLOPs", "adversary's share", "peak memory")
NOTE = (
    "The cost of making each product; for one found in the cache, the cost when it was made. Tokens: computed "
    "positions, padding included. FLOPs: matrix products, forward and backward, over all processes. Peak memory: of "
    "the largest process."
)


def cost_table(run: RunResult) -> Table:
    """Returns one row per stage in order, including those that failed, are missing, or were not requested."""
    wanted = [str(stage) for stage in run.config.get("stages", [])]
    rows = []
    for name in STAGES:
        entry = run.stages.get(name, {})
        if entry.get("done"):
            state = "found in the cache" if entry.get("from_cache") else "done"
        elif name in run.missing:
            state = "failed or not reached"
        else:
            state = "nothing to do" if name in wanted else "not requested"
        rows.append((Cell(name), Cell(state), *(Cell(text, is_figure=True) for text in _cost_texts(entry))))
    return Table(HEADINGS, tuple(rows), (NOTE,))


def _cost_texts(entry: dict[str, Any]) -> tuple[str, ...]:
    work, adversary = number(entry.get("flops")), number(entry.get("flops_adversary"))
    share = percent(adversary / work) if work and adversary is not None else MISSING
    return (
        duration(number(entry.get("seconds"))),
        thousands(number(entry.get("tokens"))),
        power(work),
        share,
        gigabytes(number(entry.get("peak_memory_bytes"))),
    )
