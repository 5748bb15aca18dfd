"""The table and the JSON object of figures recomputed from TOFU's published logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erulab.evaluation.logs import RowSet, read_log
from erulab.evaluation.recompute import TofuFigures, recompute
from erulab.reporting.rendering import Cell, Table

FORMATS = ("text", "md", "json")
DIGITS = 4
PUBLISHED = "geometric"  # the mean of wrong answers that published figures use


def recomputed(log: Path, retain_log: Path | None, limit: int | None, format: str) -> str:
    """TOFU's figures of a log in one of FORMATS.

    Args:
        retain_log: of the retrained model, for Forget Quality.
        limit: the first so many rows of each set; None: all.
    Raises:
        DataError: a file is no such log, lacks rows, or the two do not fit.
    """
    read = read_log(log)
    figures = recompute(read, None if retain_log is None else read_log(retain_log), limit)
    if format == "json":
        names = {"log": str(log), "retain_log": retain_log and str(retain_log), "layout": read.layout}
        return json.dumps(names | _plain(figures), indent=2) + "\n"
    return _table(figures, read.layout).render(format)


def _plain(figures: TofuFigures) -> dict[str, Any]:
    quality = figures.forget_quality
    return {
        "model_utility": figures.model_utility,
        "forget_quality": None if quality is None else {"p": quality.p, "n": quality.n},
        "sets": {
            rows.value: {"n": s.n, "probability": s.probability, "rouge": s.rouge, "truth_ratio": s.truth_ratio}
            for rows, s in figures.sets.items()
        },
        "forget_truth_ratio_share": figures.truth_ratio_share,
    }


def _table(figures: TofuFigures, layout: str) -> Table:
    rows = [_row("model utility", figures.model_utility)]
    quality = figures.forget_quality
    if quality is not None:
        rows.append(_row("forget quality (p)", {PUBLISHED: quality.p}, quality.n))
    for row_set, found in figures.sets.items():
        name = row_set.value.replace("_", " ")
        rows.append(_row(f"{name} probability", {PUBLISHED: found.probability}, found.n))
        rows.append(_row(f"{name} ROUGE-L recall", {PUBLISHED: found.rouge}, found.n))
        rows.append(_row(f"{name} truth ratio", found.truth_ratio, found.n))
    rows.append(_row("forget right / (right + wrong)", figures.truth_ratio_share, figures.sets[RowSet.forget].n))
    notes = (
        f"Layout: {layout}. Model utility: harmonic mean of the nine figures of retain, real authors and world facts.",
        "Truth ratios, and what is made of them, take the geometric mean of the wrong answers' probabilities, as "
        "published figures do; beside it with their arithmetic mean.",
    )
    return Table(("figure", "value", "arithmetic", "n"), tuple(rows), notes)


def _row(name: str, by_mean: dict[str, float], n: int | None = None) -> tuple[Cell, ...]:
    figures = (Cell(value=by_mean.get(mean), is_figure=True, digits=DIGITS) for mean in (PUBLISHED, "arithmetic"))
    return (Cell(name), *figures, Cell("" if n is None else str(n), is_figure=True))
