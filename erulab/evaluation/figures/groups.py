"""Figures over groups of scored rows that are no suites: facts at their worst phrasing, rows that name what was
forgotten, refusals. A group's figure is a mean over its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation import metrics
from erulab.evaluation.figures.comparisons import COMPAT, FLUENCY, MEMORISATION
from erulab.evaluation.figures.naming import forgotten_names, names_one_of
from erulab.evaluation.figures.refusal import is_measurable, is_refusal
from erulab.evaluation.row_score import RowScore

FORGET = (Role.FORGET.value, Role.HELDOUT.value)
WORST = "worst_of_phrasings"
KNOWN_IF = ("choice", "exact_match")  # figures of a row that say whether it was answered, 0 or 1
NAMING, OTHERS = "retain_naming_forgotten", "retain_not_naming_forgotten"
KEPT = ("choice", "accuracy", "exact_match", "probability", "rouge", "rwku_recall", "rouge_f1")
GENERATED = FLUENCY  # every row with a generated response has this figure


@dataclass(frozen=True)
class Entry:
    """What one row, or all rows of one fact, add to a group.

    figures: figure of scores.json without the group's name -> value.
    """

    fact: str
    figures: Mapping[str, float]


def group_entries(rows: Sequence[RowScore], benchmark: Benchmark) -> dict[str, list[Entry]]:
    """Returns the entries of each group; the group's name is the first part of its figures' names in scores.json."""
    groups = {WORST: worst_of_phrasings(rows), **naming_groups(rows, benchmark)}
    for suite in benchmark.suites:
        if suite.role is Role.RETAIN:
            groups[suite.name] = refusals_of(rows, suite, benchmark.refusals)
    return {name: entries for name, entries in groups.items() if entries}


def worst_of_phrasings(rows: Sequence[RowScore]) -> list[Entry]:
    """Returns each forgotten fact with the largest `choice` and `exact_match` over its phrasings, given and held out.

    A fact counts as known if any of its phrasings is answered.
    """
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.role not in FORGET:
            continue
        best = found.setdefault(row.fact, {})
        for name in KNOWN_IF:
            if name in row.figures:
                best[name] = max(row.figures[name], best.get(name, 0.0))
    return [Entry(fact, best) for fact, best in found.items() if best]


def refusals_of(rows: Sequence[RowScore], suite: Suite, refusals: Sequence[str]) -> list[Entry]:
    """Returns the figure `refusal` of a suite's generated responses: 1 for a refusal, otherwise 0.

    Rows are left out whose prompt is in a script in which no refusal is known.
    """
    left_out = {row.id for row in suite.rows if not is_measurable(row.prompt, refusals)}
    return [
        Entry(row.fact, {"refusal": float(is_refusal(row.response, refusals))})
        for row in rows
        if row.suite == suite.name and GENERATED in row.figures and row.id not in left_out
    ]


def naming_groups(rows: Sequence[RowScore], benchmark: Benchmark) -> dict[str, list[Entry]]:
    """Returns the retain rows whose prompt names a forgotten author or subject, and the other rows of their suites.

    Suites without any such row are in neither group, so that both are of the same kinds of questions.
    """
    names = forgotten_names(benchmark.forget)
    naming = {
        (suite.name, row.id): names_one_of(row.prompt, names)
        for suite in benchmark.suites
        if names and suite.role is Role.RETAIN
        for row in suite.rows
    }
    suites = {suite for (suite, _), found in naming.items() if found}
    groups: dict[str, list[Entry]] = {NAMING: [], OTHERS: []}
    for row in rows:
        if row.suite in suites:
            kept = {name: row.figures[name] for name in KEPT if name in row.figures}
            groups[NAMING if naming[row.suite, row.id] else OTHERS].append(Entry(row.fact, kept))
    return groups


def forget_components(rows: Sequence[RowScore]) -> list[Entry]:
    """Returns the forget rows with the components of open-unlearning's aggregates.

    truth_ratio_share: `P_right / (P_right + P_wrong)`, open-unlearning's truth ratio where memorisation is meant; it
        rises with memorisation, unlike the `truth_ratio` of forget suites.
    """
    entries = []
    for row in rows:
        if row.role != Role.FORGET.value:
            continue
        own = {name: row.figures[name] for name in (*MEMORISATION, FLUENCY) if name in row.figures}
        if "log_truth_ratio" in row.figures:
            own["truth_ratio_share"] = metrics.truth_ratio_share([row.figures["log_truth_ratio"]])
        theirs = {name: row.compat[name] for name in MEMORISATION if name in row.compat}
        if "truth_ratio" in row.compat:
            theirs["truth_ratio_share"] = 1 / (1 + row.compat["truth_ratio"])
        entries.append(Entry(row.fact, own | {f"{COMPAT}/{name}": value for name, value in theirs.items()}))
    return entries
