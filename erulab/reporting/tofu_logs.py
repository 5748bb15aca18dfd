"""Writes figures recomputed from TOFU's published logs as a table or a JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erulab.evaluation.logs import RowSet, read_log
from erulab.evaluation.recompute import TofuFigures, recompute_figures
from erulab.reporting.rendering import Cell, Table

FORMATS = ("text", "md", "json")
DIGITS = 4
PUBLISHED = "geometric"  # published figures average the wrong answers geometrically


def recomputed_figures(log: Path, retain_log: Path | None, limit: int | None, format: str) -> str:
    """Recomputes TOFU's figures from a log and returns them in one of FORMATS.

    Args:
        log: eval_log_aggregated.json or TOFU_EVAL.json.
        retain_log: the retrained model's log, for Forget Quality; None: without it.
        limit: the first so many rows of each set; None: all.
        format: one of FORMATS.
    Raises:
        DataError: a file is no such log, lacks rows, or the two logs do not fit together.
    """
    read = read_log(log)
    figures = recompute_figures(read, None if retain_log is None else read_log(retain_log), limit)
    if format == "json":
        names = {"log": str(log), "retain_log": retain_log and str(retain_log), "layout": read.layout}
        return json.dumps(names | _figures_as_json(figures), indent=2) + "\n"
    return _log_table(figures, read.layout).render(format)


def _figures_as_json(figures: TofuFigures) -> dict[str, Any]:
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


def _log_table(figures: TofuFigures, layout: str) -> Table:
    rows = [_log_row("model utility", figures.model_utility)]
    quality = figures.forget_quality
    if quality is not None:
        rows.append(_log_row("forget quality (p)", {PUBLISHED: quality.p}, quality.n))
    for row_set, found in figures.sets.items():
        name = row_set.value.replace("_", " ")
        rows.append(_log_row(f"{name} probability", {PUBLISHED: found.probability}, found.n))
        rows.append(_log_row(f"{name} ROUGE-L recall", {PUBLISHED: found.rouge}, found.n))
        rows.append(_log_row(f"{name} truth ratio", found.truth_ratio, found.n))
    rows.append(_log_row("forget right / (right + wrong)", figures.truth_ratio_share, figures.sets[RowSet.forget].n))
    notes = (
        f"Layout: {layout}. Model utility: harmonic mean of the nine figures of retain, real authors and world facts.",
        "Truth ratios, and figures computed from them, use the geometric mean of the wrong answers' probabilities, as "
        "published figures do; the column beside it uses their arithmetic mean.",
    )
    return Table(("figure", "value", "arithmetic", "n"), tuple(rows), notes)


def _log_row(name: str, by_mean: dict[str, float], n: int | None = None) -> tuple[Cell, ...]:
    figures = (Cell(value=by_mean.get(mean), is_figure=True, digits=DIGITS) for mean in (PUBLISHED, "arithmetic"))
    return (Cell(name), *figures, Cell("" if n is None else str(n), is_figure=True))
