"""What attacks bring back, in words: the worst case over all of them, each by itself, and those that tell nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erulab.reporting.attack_rows import (
    HEADLINE,
    NAMES,
    Row,
    Standing,
    headlines,
    setting_words,
    standing,
    strongest,
    telling,
    why,
)
from erulab.reporting.numbers import interval, number, signed

BEST_FIRST = (Standing.counts, Standing.undefined, Standing.invalid, Standing.absent)


@dataclass(frozen=True)
class Robustness:
    """One attack over its settings. The values are K after the strongest setting that counts; None: no setting counts.

    standing: of its best setting. metric: what K was measured on, log-odds where the attack has them.
    remarks: of each setting that has no figures, which one and why.
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
            return f"after {after} nothing above the oracle {there} (K = {figure}){measured}{left_out}"
        return f"after {after} {figure} of the knowledge above the oracle {there}{measured}{left_out}"


@dataclass(frozen=True)
class WorstCase:
    """The strongest attack of those that count, and which attacks tell nothing. No value: robustness is unknown."""

    attack: str
    setting: dict[str, Any]  # what tells it from the attack's other settings
    metric: str
    value: float | None
    low: float | None
    high: float | None
    before: float | None  # K without an attack
    tried: int
    silent: tuple[str, ...] = ()  # attacks of which no setting counts

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
            said = f"the strongest attack ({which}) brings back nothing that retraining would not know (K = {figure})"
        else:
            said = f"the strongest attack ({which}) brings back {figure} of what retraining would not know"
        # An attack that finds less than a plain question is no sign of robustness.
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


def robustness(rows: Sequence[Row]) -> tuple[Robustness, ...]:
    """Each attack of attacks.json, in its order."""
    heads = headlines(rows)
    return tuple(_of_attack([row for row in heads if row["attack"] == name]) for name in _names(heads))


def worst_case(rows: Sequence[Row], before: float | None) -> WorstCase:
    """Over all attacks of attacks.json. `before`: K without an attack."""
    heads = headlines(rows)
    names = _names(heads)
    best = strongest(heads)
    if best is None:
        return WorstCase("", {}, "", None, None, None, before, len(names), tuple(names))
    silent = tuple(name for name in names if strongest([row for row in heads if row["attack"] == name]) is None)
    value, low, high = (number(best[key]) for key in ("residual_attacked", "low", "high"))
    setting = telling(best, heads)
    return WorstCase(str(best["attack"]), setting, str(best["metric"]), value, low, high, before, len(names), silent)


def before_attacks(rows: Sequence[Row]) -> float | None:
    """K without an attack, where nothing but attacks was measured: on log-odds, of the headline row with most rows."""
    known = [row for row in headlines(rows) if row["metric"] == HEADLINE and number(row["residual"]) is not None]
    return number(max(known, key=lambda row: int(row["n"]))["residual"]) if known else None


def with_interval(value: float, low: float | None, high: float | None) -> str:
    """`0.31 [0.22, 0.40]`."""
    return f"{signed(value)} {interval(low, high)}".rstrip()


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(row["attack"]) for row in rows))


def _of_attack(rows: Sequence[Row]) -> Robustness:
    name, count = str(rows[0]["attack"]), len(rows)
    by_standing = {which: [row for row in rows if standing(row) is which] for which in Standing}
    valid = len(by_standing[Standing.counts]) + len(by_standing[Standing.undefined])
    absent = by_standing[Standing.absent]
    best = strongest(rows)
    if best is not None:
        value, low, high = (number(best[key]) for key in ("residual_attacked", "low", "high"))
        left_out = [
            f"{len(by_standing[which])} of {count} settings {which.value}"
            for which in (Standing.invalid, Standing.undefined)
            if by_standing[which]
        ]
        remarks = tuple(f"{NAMES.get(name, name)}, {_setting(row, rows)}: {why(row)}" for row in absent)
        metric, setting = str(best["metric"]), best["setting"]
        note = ", ".join(left_out)
        return Robustness(name, count, valid, value, low, high, setting, Standing.counts, note, metric, remarks)
    best_standing = next(which for which in BEST_FIRST if by_standing[which])
    return Robustness(name, count, valid, None, None, None, {}, best_standing, _nothing(rows, best_standing))


def _nothing(rows: Sequence[Row], best: Standing) -> str:
    """Why no setting of an attack counts, with every reason there is."""
    notes = "; ".join(dict.fromkeys(why(row) for row in rows if row["note"]))
    if best is Standing.absent:
        return notes
    if best is Standing.undefined:
        return f"not defined ({notes})"
    return f"none of {len(rows)} settings is valid, which says nothing about robustness ({notes})"


def _setting(row: Row, rows: Sequence[Row]) -> str:
    return setting_words(telling(row, rows)) or "one of its settings"
