"""Reads the rows of attacks.json for the report: which rows belong together, which count, and why others do not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

HEADLINE = "log_odds"  # metric of headline rows, unless the attack has no log-odds
# Attack -> its name after the word "after"; a user's own attack is called by its registered name.
NAMES = {
    "relearn": "relearning",
    "jailbreak": "jailbreak prompts",
    "prefill": "prefilled answers",
    "few_shot": "few-shot prompts",
    "paraphrase": "paraphrased questions",
    "soft_prompt": "soft prompts",
    "gcg": "GCG suffixes",
    "abliterate": "abliteration",
    "quantize": "quantisation",
    "prune": "pruning",
    "logit_lens": "the logit lens",
    "probe": "probing",
    "sample": "sampling",
    "mia": "membership inference",
    "sequence": "several attacks in turn",
}

AttackRow = dict[str, Any]


class Standing(Enum):
    """Whether a row says something about robustness. The value is what attacks.json calls it."""

    counts = "counts"
    invalid = "not_valid"  # the attack destroyed the target or left too much alone: every model would look robust
    undefined = "undefined"  # under the attack, target and oracle differ by too little
    absent = "not_run"  # the attack did not run, failed, or could not be judged

    @property
    def mark(self) -> str:
        """The mark of such a row in tables."""
        marks = {"counts": "yes", "not_valid": "not valid", "undefined": "undefined", "not_run": "no figures"}
        return marks[self.value]


@dataclass(frozen=True)
class SettingRows:
    """The rows of one attack in one setting.

    rows: the headline first, then the other metrics.
    utility: the row of the retain suite; None if the attack has no figures.
    """

    rows: Sequence[AttackRow]
    utility: AttackRow | None

    @property
    def headline(self) -> AttackRow:
        return self.rows[0]


def group_by_setting(rows: Sequence[AttackRow]) -> list[SettingRows]:
    """Groups the rows by attack and setting: a headline row opens a group, the row of the retain suite closes it."""
    starts = [place for place, row in enumerate(rows) if row["headline"]]
    found = []
    for start, end in itertools.pairwise([*starts, len(rows)]):
        own = rows[start:end]
        found.append(SettingRows(own[:-1], own[-1]) if len(own) > 1 else SettingRows(own, None))
    return found


def headline_rows(rows: Sequence[AttackRow]) -> list[AttackRow]:
    """Returns the row of each attack and setting that the verdict uses."""
    return [row for row in rows if row["headline"]]


def standing_of(row: AttackRow) -> Standing:
    """Returns whether a row counts. Not for the row of the retain suite, which has no standing."""
    return Standing(row["standing"])


def strongest_row(rows: Sequence[AttackRow]) -> AttackRow | None:
    """Returns the row after which most knowledge is left, among the rows that count; None if no row counts."""
    counted = [row for row in rows if standing_of(row) is Standing.counts]
    return max(counted, key=lambda row: float(row["knowledge_left_attacked"]), default=None)


def reason_of(row: AttackRow) -> str:
    """Returns why a row does not count; "" if it counts."""
    return str(row["reason"] or "")


def remarks_of(row: AttackRow) -> str:
    """Returns why a row does not count, and the remarks on single figures."""
    return "; ".join(text for text in (reason_of(row), str(row["note"])) if text)


def setting_words(setting: object) -> str:
    """Writes an attack's setting object as `key=value` words."""
    if not isinstance(setting, dict):
        return str(setting)
    return " ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in setting.items())


def distinguishing_settings(row: AttackRow, rows: Sequence[AttackRow]) -> dict[str, Any]:
    """Returns the first key of a row's setting and the keys in which the settings of its attack differ.

    Args:
        rows: all headline rows.
    """
    own = row["setting"]
    peers = [other["setting"] for other in rows if other["attack"] == row["attack"]]
    return {k: v for i, (k, v) in enumerate(own.items()) if i == 0 or any(peer.get(k) != v for peer in peers)}


def attack_label(row: AttackRow, rows: Sequence[AttackRow]) -> str:
    """Returns an attack with its distinguishing settings: `relearn samples=100`."""
    return f"{row['attack']} {setting_words(distinguishing_settings(row, rows))}".rstrip()
