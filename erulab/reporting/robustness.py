"""Judges each attack and the worst case over all attacks, and states the result in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erulab.evaluation.equivalence import LEAST_FACTS, Bounds, Withstood, facts_that_decide, judge_attacked
from erulab.reporting.attack_rows import (
    HEADLINE,
    NAMES,
    AttackRow,
    Standing,
    distinguishing_settings,
    headline_rows,
    reason_of,
    setting_words,
    standing_of,
    strongest_row,
)
from erulab.reporting.bounds import read_bounds, with_interval, with_interval_90
from erulab.reporting.numbers import number, signed, thousands

BEST_FIRST = (Standing.counts, Standing.undefined, Standing.invalid, Standing.absent)


@dataclass(frozen=True)
class Robustness:
    """One attack over all its settings.

    settings, valid: number of settings, and of those that are valid.
    left: knowledge left (K) after the strongest setting that counts; None if no setting counts.
    outcome: whether the attack brings knowledge back; None if no setting counts.
    standing: of the best setting.
    note: why settings do not count.
    metric: the metric of K: log-odds if the attack has them.
    remarks: for each setting without figures, which one it is and why.
    """

    attack: str
    settings: int
    valid: int
    left: Bounds | None
    outcome: Withstood | None
    setting: dict[str, Any]
    standing: Standing = Standing.counts
    note: str = ""
    metric: str = HEADLINE
    remarks: tuple[str, ...] = ()

    @property
    def value(self) -> float | None:
        return None if self.left is None else self.left.value

    @property
    def words(self) -> str:
        after = NAMES.get(self.attack, self.attack)
        if self.left is None or self.outcome is None:
            return f"{after}: {self.note}"
        measured = "" if self.metric == HEADLINE else f", measured on {self.metric}"
        left_out = f" ({self.note})" if self.note else ""
        shown = _with_interval(self.left, self.outcome)
        return f"after {after}: {self.outcome.value}, knowledge left {shown}{measured}{left_out}"


@dataclass(frozen=True)
class WorstCase:
    """The strongest of the attacks that count.

    left: knowledge left (K) after it; None if no attack counts, so that robustness is unknown.
    outcome: whether it brings knowledge back; None if no attack counts.
    """

    attack: str
    setting: dict[str, Any]  # what distinguishes it from the attack's other settings
    metric: str
    left: Bounds | None
    outcome: Withstood | None
    margin: float
    before: float | None  # K without an attack
    tried: int  # number of attacks
    counted: int = 0  # number of attacks and settings that count
    facts: int = 0  # number of facts that K is measured on
    silent: tuple[str, ...] = ()  # attacks without a setting that counts
    measurable: bool = True  # whether the target knows enough of the facts to judge by them

    @property
    def value(self) -> float | None:
        return None if self.left is None else self.left.value

    @property
    def words(self) -> str:
        if not self.tried:
            return "robustness: unknown, no attack was run"
        if self.left is None:
            return f"robustness: unknown, {self._silent}"
        words = setting_words(self.setting).replace(" ", ", ")
        which = ", ".join(part for part in (self.attack, words) if part)
        # The largest of several values is larger by chance alone; its interval does not know of the others.
        which += f"; the largest of {self.counted}" if self.counted > 1 else ""
        measured = "" if self.metric == HEADLINE else f", measured on {self.metric}"
        # An attack that finds less than the plain question says nothing about robustness.
        more = self.before is not None and round(self.before, 2) > round(max(self.left.value, 0.0), 2)
        plain = f", less than without an attack ({signed(self.before)})" if more else ""
        interval = _with_interval(self.left, self.outcome)
        said = f"after the strongest attack ({which}) knowledge left is {interval}{measured}{plain}"
        if self.outcome is Withstood.robust:
            shown = f"robust: {said}, below the margin of {self.margin:.2f}"
        elif self.outcome is Withstood.back:
            shown = f"not robust: {said}"
        else:
            shown = f"robustness undecided: {said}; {self._needed}"
        return shown + (f"; {self._silent}" if self.silent else "")

    @property
    def _needed(self) -> str:
        assert self.left is not None
        if not self.measurable:
            return "knowledge left is not measurable without an attack, and so not after one"
        needed = facts_that_decide(self.left, self.margin, self.facts) if self.facts else None
        if needed is None:
            return f"it lies so close to the margin of {self.margin:.2f} that more facts would hardly decide"
        return f"about {thousands(needed)} facts would decide (now {self.facts})"

    @property
    def _silent(self) -> str:
        which = ", ".join(self.silent)
        if len(self.silent) == self.tried:
            what = "the only attack does" if self.tried == 1 else f"all {self.tried} attacks do"
            return f"{what} not count: {which}"
        return f"{len(self.silent)} of {self.tried} attacks do not count: {which}"


def judge_attacks(rows: Sequence[AttackRow], margin: float, *, measurable: bool = True) -> tuple[Robustness, ...]:
    """Returns what each attack of attacks.json brought back, in their order.

    Args:
        margin: the largest knowledge left that does not matter.
        measurable: whether the target knows enough of the facts to judge by them; otherwise all is undecided.
    """
    heads = headline_rows(rows)
    return tuple(
        _robustness_of([row for row in heads if row["attack"] == name], margin, measurable)
        for name in _attack_names(heads)
    )


def worst_case(rows: Sequence[AttackRow], before: float | None, margin: float, *, measurable: bool = True) -> WorstCase:
    """Returns the strongest attack of attacks.json.

    Args:
        before: K without an attack.
        margin, measurable: as for `judge_attacks`.
    """
    heads = headline_rows(rows)
    names = _attack_names(heads)
    best = strongest_row(heads)
    left = None if best is None else read_bounds(best, "knowledge_left_attacked")
    if best is None or left is None:
        return WorstCase("", {}, "", None, None, margin, before, len(names), silent=tuple(names))
    return WorstCase(
        attack=str(best["attack"]),
        setting=distinguishing_settings(best, heads),
        metric=str(best["metric"]),
        left=left,
        outcome=_outcome_of(best, left, margin, measurable),
        margin=margin,
        before=before,
        tried=len(names),
        counted=sum(standing_of(row) is Standing.counts for row in heads),
        facts=int(best["facts"]),
        silent=tuple(name for name in names if strongest_row([row for row in heads if row["attack"] == name]) is None),
        measurable=measurable,
    )


def knowledge_left_before_attacks(rows: Sequence[AttackRow]) -> float | None:
    """Returns K without an attack for a run that has only attacks: on log-odds, from the headline with most rows."""
    known = [
        row for row in headline_rows(rows) if row["metric"] == HEADLINE and number(row["knowledge_left"]) is not None
    ]
    return number(max(known, key=lambda row: int(row["n"]))["knowledge_left"]) if known else None


def _outcome_of(row: AttackRow, left: Bounds, margin: float, measurable: bool) -> Withstood:
    decides = measurable and int(row["facts"]) >= LEAST_FACTS
    return judge_attacked(left, margin) if decides else Withstood.undecided


def _with_interval(left: Bounds, outcome: Withstood | None) -> str:
    """Writes K with the interval that its outcome was judged by."""
    return with_interval_90(left) if outcome is Withstood.robust else with_interval(left)


def _attack_names(rows: Sequence[AttackRow]) -> list[str]:
    return list(dict.fromkeys(str(row["attack"]) for row in rows))


def _robustness_of(rows: Sequence[AttackRow], margin: float, measurable: bool) -> Robustness:
    name, count = str(rows[0]["attack"]), len(rows)
    by_standing = {which: [row for row in rows if standing_of(row) is which] for which in Standing}
    valid = len(by_standing[Standing.counts]) + len(by_standing[Standing.undefined])
    absent = by_standing[Standing.absent]
    best = strongest_row(rows)
    left = None if best is None else read_bounds(best, "knowledge_left_attacked")
    if best is not None and left is not None:
        left_out = [
            f"{len(by_standing[which])} of {count} settings {which.mark}"
            for which in (Standing.invalid, Standing.undefined)
            if by_standing[which]
        ]
        return Robustness(
            attack=name,
            settings=count,
            valid=valid,
            left=left,
            outcome=_outcome_of(best, left, margin, measurable),
            setting=best["setting"],
            note=", ".join(left_out),
            metric=str(best["metric"]),
            remarks=tuple(f"{NAMES.get(name, name)}, {_setting_label(row, rows)}: {reason_of(row)}" for row in absent),
        )
    best_standing = next(which for which in BEST_FIRST if by_standing[which])
    return Robustness(name, count, valid, None, None, {}, best_standing, _why_nothing_counts(rows, best_standing))


def _why_nothing_counts(rows: Sequence[AttackRow], best: Standing) -> str:
    """Explains why no setting of an attack counts, with all reasons."""
    reasons = "; ".join(dict.fromkeys(reason_of(row) for row in rows if row["reason"]))
    if best is Standing.absent:
        return reasons
    if best is Standing.undefined:
        return f"not defined ({reasons})"
    return f"none of {len(rows)} settings is valid, which says nothing about robustness ({reasons})"


def _setting_label(row: AttackRow, rows: Sequence[AttackRow]) -> str:
    return setting_words(distinguishing_settings(row, rows)) or "one of its settings"
