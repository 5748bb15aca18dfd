"""Frames of runs: one row per run, and the long frames of its scores, attacks and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erulab.evaluation.equivalence import Bounds
from erulab.redaction import redacted_text
from erulab.reporting.arm_summary import is_measurable
from erulab.reporting.attack_rows import setting_words
from erulab.reporting.frames.frame import Column, Frame, make_column
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.settings import NOT_SETTINGS, differing_settings, flat_settings
from erulab.reporting.shown_figures import row_count
from erulab.reporting.verdict import judge_run

Row = dict[str, Any]
LEFT, KEPT = "knowledge_left", "utility_kept"
WORST = f"attack/worst/{LEFT}"
MEASURABLE = "measurable"  # whether knowledge left means something; shown in no table
NAMES = ("method", "reward", "adversary", "model", "dataset")  # config groups that have a column of their own
DRAWN = ("seed", "dataset.world", "dataset.seed")  # settings in which the runs of an arm differ
ENDS = ("_low", "_high")
# Figures of scores.json that describe another figure, and are no estimates themselves.
COUNTS = ("/n", "_facts")
BESIDE = (*COUNTS, "_low", "_high", "_low90", "_high90")


def run_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per run: its names and settings, the verdict, and every figure of the unlearned model.

    A figure `x` that has a 95 % interval has the columns `x_low` and `x_high` behind it. Settings are shown where the
    runs differ in them.
    """
    settings = [_settings(run) for run in runs]
    figures = [_figures(run) for run in runs]
    names = [_names(run) for run in runs]
    verdicts = [_verdict(run) for run in runs]
    differing = {key for one in differing_settings([run.config for run in runs]) for key in one}
    columns = {
        **_columns(names, texts=_keys(names)),
        **_columns(settings, texts=_keys(settings)),
        **_columns(verdicts, texts=_keys(verdicts)),
        **_columns(figures),
        MEASURABLE: make_column(is_measurable(run) for run in runs),
    }
    known = [key for key in _keys(settings) if any(value is not None for value in columns[key].values)]
    of_settings = [key for key in known if key in differing or key in DRAWN]
    shown = (*_keys(names), *of_settings, *_keys(verdicts), *_keys(figures))
    chosen = [key for key in ("method", "reward", "adversary") if _differs(columns[key])]
    differ = [key for key in of_settings if _differs(columns[key])]
    brief = ("run", *chosen, *differ, "verdict", *main_figures(columns))
    return Frame(columns, shown, brief)


def score_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per run, model and figure of scores.json, with the figure's 95 % interval and rows."""
    rows = []
    for run in runs:
        for model, scores in run.scores.items():
            ends = run.intervals.get(model, {})
            for name, value in scores.items():
                if number(value) is None or name.endswith("/n"):
                    continue
                suite, _, figure = name.rpartition("/")
                low, high = ends.get(name) or (None, None)
                rows.append(
                    {"run": run.name, "model": model, "suite": suite, "figure": figure}
                    | {"value": value, "low": low, "high": high, "n": number(row_count(scores, name))}
                )
    return _long_frame(rows, ("run", "model", "suite", "figure"))


def attack_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per row of attacks.json: its numbers, texts and flags by their names there."""
    rows = []
    for run in runs:
        for row in run.attacks:
            plain = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
            own = {"attack": row["attack"], "setting": setting_words(row["setting"]), "metric": row["metric"]}
            rows.append({"run": run.name, **own, **{key: plain[key] for key in plain if key not in own}})
    return _long_frame(rows, ("run", "attack", "setting", "metric", "standing", "reason", "note"))


def step_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per line of metrics.jsonl, that is per logged step of unlearning."""
    rows = [{"run": run.name, **line} for run in runs for line in run.metrics]
    return _long_frame(rows, ("run", "stage"))


def main_figures(columns: Mapping[str, Column]) -> list[str]:
    """Returns the figures of the verdict among the columns: knowledge left, before and after attacks, and utility.

    An attack without a valid result keeps its column, so that a table shows that it gave none.
    """
    attacks = [name for name in columns if name.startswith("attack/") and name.endswith(f"/{LEFT}") and name != WORST]
    known = [name for name in (LEFT, WORST, KEPT) if any(value is not None for value in columns[name].values)]
    return [name for name in (LEFT, WORST, *attacks, KEPT) if name in known or name in attacks]


def _names(run: RunResult) -> Row:
    own = {group: run.choice(group) or None for group in NAMES}
    return {"run": run.name, "folder": redacted_text(str(run.path)), **own, "method": run.made_by or None}


def _settings(run: RunResult) -> Row:
    flat = flat_settings({key: value for key, value in run.config.items() if key not in NOT_SETTINGS})
    own = {key: value for key, value in flat.items() if key not in {f"{group}.name" for group in NAMES}}
    return {key: None for key in DRAWN} | own


def _verdict(run: RunResult) -> Row:
    judged = judge_run(run)
    return {
        "verdict": judged.label if run.scores else "not scored",
        "collapsed": judged.collapsed if judged.utility.ratio is not None else None,
        "attack/worst/name": judged.worst.attack or None,
    }


def _figures(run: RunResult) -> Row:
    """Returns the figures of the unlearned model, those of the verdict first."""
    judged = judge_run(run)
    found = _estimate(LEFT, judged.forgetting.left) | _estimate(WORST, judged.worst.left)
    for one in judged.robustness:
        found |= _estimate(f"attack/{one.attack}/{LEFT}", one.left)
    found |= _estimate(KEPT, judged.utility.share, judged.utility.ratio)
    ends = run.intervals.get("unlearned", {})
    for name, value in run.scores.get("unlearned", {}).items():
        if name in found or isinstance(value, str | bool):
            continue
        found[name] = value if name.endswith(COUNTS) else number(value)
        if name in ends:
            found |= dict(zip((name + end for end in ENDS), map(number, ends[name]), strict=True))
    return found


def _estimate(name: str, found: Bounds | None, value: float | None = None) -> Row:
    if found is None:
        return {name: value, f"{name}_low": None, f"{name}_high": None}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _columns(rows: Sequence[Row], texts: Sequence[str] = ()) -> dict[str, Column]:
    """Returns the rows as columns: all but counts and those that `texts` names are figures."""
    return {
        key: make_column((row.get(key) for row in rows), is_figure=key not in texts and not key.endswith(COUNTS))
        for key in _keys(rows)
    }


def _long_frame(rows: Sequence[Row], texts: Sequence[str]) -> Frame:
    columns = _columns(rows, texts) if rows else {key: make_column([]) for key in texts}
    return Frame(columns, tuple(columns), tuple(columns))


def _differs(column: Column) -> bool:
    return len(set(column.values)) > 1
