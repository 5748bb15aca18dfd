"""Figures of rows by suite and row id, before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from erulab.evaluation.knowledge import Values
from erulab.evaluation.row_score import RowScore

RowKey = tuple[str, str]  # suite, row id
FiguresByRow = dict[RowKey, dict[str, float]]


def figures_by_row(rows: Sequence[RowScore], left_out: frozenset[str] = frozenset()) -> FiguresByRow:
    """Returns the figures of each row, except rows whose fact is left out."""
    return {(row.suite, row.id): row.figures for row in rows if row.fact not in left_out}


def average_repeats(repeats: Sequence[FiguresByRow]) -> FiguresByRow:
    """Averages each row's figures over the repeats in which it was scored."""
    found: dict[RowKey, list[dict[str, float]]] = {}
    for repeat in repeats:
        for key, figures in repeat.items():
            found.setdefault(key, []).append(figures)
    return {
        key: {name: float(np.mean([one[name] for one in several])) for name in set.intersection(*map(set, several))}
        for key, several in found.items()
    }


def figure_values(rows: FiguresByRow, keys: Sequence[RowKey], figure: str) -> Values | None:
    """Returns a figure of the rows with these keys, (rows,); None if one of them does not have it."""
    found = [rows.get(key, {}).get(figure) for key in keys]
    return None if any(value is None for value in found) else np.array(found, dtype=np.float64)
