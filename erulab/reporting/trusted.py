"""Which figures a study of figures has found to fail, for marks in reports; and the study's tables.

The data, trusted_figures.json, are written by `python -m erulab.study launch/studies/figures.yaml --write`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from erulab.reporting.rendering import Cell, Table

FILE = Path(__file__).with_name("trusted_figures.json")
MARK = "†"
FAILED = (
    "Failed the study of figures, because it takes models that hide knowledge for models without it, or misses what "
    "relearning or rounding brings back (python -m erulab.list trust)"
)


@functools.cache
def trusted_figures() -> dict[str, Any]:
    """Reads the result of the last study: thresholds, and for each setting its models and figures."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def failed_figures() -> frozenset[str]:
    """Returns the names of the figures that failed in at least one setting, and none that was not measured."""
    settings = trusted_figures()["settings"].values()
    return frozenset(name for one in settings for name, found in one["figures"].items() if found["failed"])


def has_failed(name: str) -> bool:
    """Returns whether the figure, by its name in scores.json, failed."""
    return name in failed_figures()


def marked(name: str, words: str) -> str:
    """Returns the words that stand for a figure in a table, with a mark if it failed.

    Args:
        name: of the figure, as in scores.json.
    """
    return f"{words} {MARK}" if has_failed(name) else words


def footnote(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the note below a table that shows figures of these names; empty if none of them failed."""
    return (f"{MARK} {FAILED}.",) if any(map(has_failed, names)) else ()


def merged_content(thresholds: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of trusted_figures.json after a study: its settings replace those of the same name."""
    return {**thresholds, "settings": {**trusted_figures()["settings"], **settings}}


def trust_tables(content: Mapping[str, Any]) -> dict[str, Table]:
    """Returns a table per setting: each figure's AUC without and with hiders, R and Q.

    Args:
        content: as of trusted_figures.json.
    """
    return {name: _trust_table(name, one, content) for name, one in content["settings"].items()}


def _trust_table(name: str, setting: Mapping[str, Any], content: Mapping[str, Any]) -> Table:
    rows = tuple(
        (Cell(f"{figure} {MARK}" if found["failed"] else figure), *_auc_cells(found), Cell(_share_words(found)))
        for figure, found in sorted(setting["figures"].items(), key=lambda item: -item[1]["with_hiders"]["value"])
    )
    models = setting["models"]
    notes = (
        f"{models['know']} models know, {models['hide']} know and hide it, {models['lack']} do not know, of "
        f"{models['runs']} runs; R and Q: means over {models['relearned']} models.",
        f"{MARK}: AUC with hiders under {content['faithfulness']}, or harmonic mean of R and Q under "
        f"{content['robustness']}.",
    )
    return Table((name, "AUC", "AUC with hiders", "R, Q"), rows, notes)


def _auc_cells(found: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(f"{found[pool]['value']:.2f} [{found[pool]['low']:.2f}, {found[pool]['high']:.2f}]")
        for pool in ("faithfulness", "with_hiders")
    ]


def _share_words(found: Mapping[str, Any]) -> str:
    return ", ".join("-" if found[key] is None else f"{found[key]:.2f}" for key in ("relearning", "quantisation"))
