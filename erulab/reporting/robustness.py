"""Judges each attack and the worst case over all attacks, and states the result in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from erulab.reporting.numbers import interval, number, signed

BEST_FIRST = (Standing.counts, Standing.undefined, Standing.invalid, Standing.absent)


@dataclass(frozen=True)
class Robustness:
    """One attack over all its settings.

    settings, valid: number of settings, and of those that are valid.
    value, low, high: knowledge left (K) after the strongest setting that counts, with its 95 % interval; None if no
        setting counts.
    standing: of the best setting.
    note: why settings do not count.
    metric: the metric of K: log-odds if the attack has them.
    remarks: for each setting without figures, which one it is and why.
    """

    attack: str
    settings: int
    valid: int
    value: float | None
    low: float | None
    high: float | None
    setting: dict[str, Any]
    standing: Standing = Standing.counts
    note: str = ""
    metric: str = HEADLINE
    remarks: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        after = NAMES.get(self.attack, self.attack)
        if self.value is None:
            return f"{after}: {self.note}"
        measured = "" if self.metric == HEADLINE else f", measured on {self.metric}"
        left_out = f" ({self.note})" if self.note else ""
        there = "is back" if self.attack == "relearn" else "is there"
        figure = with_interval(self.value, self.low, self.high)
        if self.value <= 0:
            return f"after {after} nothing above the oracle {there} (knowledge left {figure}){measured}{left_out}"
        return f"after {after} {figure} of the knowledge above the oracle {there}{measured}{left_out}"


@dataclass(frozen=True)
class WorstCase:
    """The strongest of the attacks that count.

    value, low, high: knowledge left (K) after it; None if no attack counts, so that robustness is unknown.
    """

    attack: str
    setting: dict[str, Any]  # what distinguishes it from the attack's other settings
    metric: str
    value: float | None
    low: float | None
    high: float | None
    before: float | None  # K without an attack
    tried: int  # number of attacks
    silent: tuple[str, ...] = ()  # attacks without a setting that counts

    @property
    def words(self) -> str:
        if not self.tried:
            return "robustness: unknown, no attack was run"
        if self.value is None:
            return f"robustness: unknown, {self._silent}"
        words = setting_words(self.setting).replace(" ", ", ")
        which = ", ".join(part for part in (self.attack, words) if part)
        figure = with_interval(self.value, self.low, self.high)
        measured = "" if self.metric == HEADLINE else f", measured on {self.metric}"
        if self.value <= 0:
            nothing = "brings back nothing that retraining would not know"
            said = f"the strongest attack ({which}) {nothing} (knowledge left {figure})"
        else:
            said = f"the strongest attack ({which}) brings back {figure} of what retraining would not know"
        # An attack that finds less than the plain question says nothing about robustness.
        more = self.before is not None and self.before > max(self.value, 0.0)
        plain = f", less than is there without an attack ({signed(self.before)})" if more else ""
        return f"{said}{measured}{plain}" + (f"; {self._silent}" if self.silent else "")

    @property
    def _silent(self) -> str:
        which = ", ".join(self.silent)
        if len(self.silent) == self.tried:
            what = "the only attack does" if self.tried == 1 else f"all {self.tried} attacks do"
            return f"{what} not count: {which}"
        return f"{len(self.silent)} of {self.tried} attacks do not count: {which}"


def judge_attacks(rows: Sequence[AttackRow]) -> tuple[Robustness, ...]:
    """Returns what each attack of attacks.json brought back, in their order."""
    heads = headline_rows(rows)
    return tuple(_robustness_of([row for row in heads if row["attack"] == name]) for name in _attack_names(heads))


def worst_case(rows: Sequence[AttackRow], before: float | None) -> WorstCase:
    """Returns the strongest attack of attacks.json.

    Args:
        before: K without an attack.
    """
    heads = headline_rows(rows)
    names = _attack_names(heads)
    best = strongest_row(heads)
    if best is None:
        return WorstCase("", {}, "", None, None, None, before, len(names), tuple(names))
    silent = tuple(name for name in names if strongest_row([row for row in heads if row["attack"] == name]) is None)
    value, low, high = (number(best[key]) for key in ("knowledge_left_attacked", "low", "high"))
    setting = distinguishing_settings(best, heads)
    return WorstCase(str(best["attack"]), setting, str(best["metric"]), value, low, high, before, len(names), silent)


def knowledge_left_before_attacks(rows: Sequence[AttackRow]) -> float | None:
    """Returns K without an attack for a run that has only attacks: on log-odds, from the headline with most rows."""
    known = [
        row for row in headline_rows(rows) if row["metric"] == HEADLINE and number(row["knowledge_left"]) is not None
    ]
    return number(max(known, key=lambda row: int(row["n"]))["knowledge_left"]) if known else None


def with_interval(value: float, low: float | None, high: float | None) -> str:
    """Writes a figure with its interval: `0.31 [0.22, 0.40]`."""
    return f"{signed(value)} {interval(low, high)}".rstrip()


def _attack_names(rows: Sequence[AttackRow]) -> list[str]:
    return list(dict.fromkeys(str(row["attack"]) for row in rows))


def _robustness_of(rows: Sequence[AttackRow]) -> Robustness:
    name, count = str(rows[0]["attack"]), len(rows)
    by_standing = {which: [row for row in rows if standing_of(row) is which] for which in Standing}
    valid = len(by_standing[Standing.counts]) + len(by_standing[Standing.undefined])
    absent = by_standing[Standing.absent]
    best = strongest_row(rows)
    if best is not None:
        value, low, high = (number(best[key]) for key in ("knowledge_left_attacked", "low", "high"))
        left_out = [
            f"{len(by_standing[which])} of {count} settings {which.mark}"
            for which in (Standing.invalid, Standing.undefined)
            if by_standing[which]
        ]
        remarks = tuple(f"{NAMES.get(name, name)}, {_setting_label(row, rows)}: {reason_of(row)}" for row in absent)
        metric, setting = str(best["metric"]), best["setting"]
        note = ", ".join(left_out)
        return Robustness(name, count, valid, value, low, high, setting, Standing.counts, note, metric, remarks)
    best_standing = next(which for which in BEST_FIRST if by_standing[which])
    return Robustness(name, count, valid, None, None, None, {}, best_standing, _why_nothing_counts(rows, best_standing))


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
