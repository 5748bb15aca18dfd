"""Rows of attacks.json, as the report reads them: what belongs together, what counts, and why something does not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from erulab.reporting.numbers import number

HEADLINE = "log_odds"  # where an attack has no such figure, its headline row has another metric
NOT_VALID = "not valid: "  # as attacks.figures.validity begins
UNDEFINED = "residual_attacked undefined: "  # as attacks.figures.figures writes it
# How an attack is called behind "after"; others, such as a user's own, go by their name.
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

Row = dict[str, Any]


class Standing(Enum):
    """Whether a row says something about robustness; the value is how a table marks it."""

    counts = "yes"
    invalid = "not valid"  # the attack destroyed the target: it would make any model look robust
    undefined = "undefined"  # target and oracle differ by too little under it
    absent = "no figures"  # refused, failed, or not judged


@dataclass(frozen=True)
class Group:
    """One attack in one setting: `rows` begin with the headline, `utility` is the retain suite's."""

    rows: Sequence[Row]
    utility: Row | None

    @property
    def headline(self) -> Row:
        return self.rows[0]


def groups(rows: Sequence[Row]) -> list[Group]:
    """attacks.json by attack and setting: a headline row opens a group, the retain suite's row closes it."""
    starts = [place for place, row in enumerate(rows) if row["headline"]]
    found = []
    for start, end in itertools.pairwise([*starts, len(rows)]):
        own = rows[start:end]
        found.append(Group(own[:-1], own[-1]) if len(own) > 1 else Group(own, None))
    return found


def headlines(rows: Sequence[Row]) -> list[Row]:
    """The row of each attack and setting that the verdict goes by."""
    return [row for row in rows if row["headline"]]


def standing(row: Row) -> Standing:
    """Of any row but the retain suite's; only a row that counts may say that a model is robust."""
    if not row["n"]:
        return Standing.absent
    if row["valid"] is not True:
        return Standing.invalid
    return Standing.undefined if number(row["residual_attacked"]) is None else Standing.counts


def strongest(rows: Sequence[Row]) -> Row | None:
    """The row that brings back most, of those that count."""
    counted = [row for row in rows if standing(row) is Standing.counts]
    return max(counted, key=lambda row: float(row["residual_attacked"]), default=None)


def why(row: Row) -> str:
    """Why a row does not count: its note holds that among remarks on single figures, the reason first."""
    note, which = str(row["note"]), standing(row)
    if which is Standing.invalid:
        return note.removeprefix(NOT_VALID).split("; ")[0]
    if which is Standing.undefined:
        of_k = [part for part in note.split("; ") if part.startswith(UNDEFINED)]
        return of_k[0].removeprefix(UNDEFINED) if of_k else note
    return note


def setting_words(setting: object) -> str:
    """An attack's setting object as `key=value` words."""
    if not isinstance(setting, dict):
        return str(setting)
    return " ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in setting.items())


def telling(row: Row, rows: Sequence[Row]) -> Row:
    """The first key of a row's setting, and those in which the attack's settings differ: the rest is in the table."""
    own = row["setting"]
    peers = [other["setting"] for other in rows if other["attack"] == row["attack"]]
    return {k: v for i, (k, v) in enumerate(own.items()) if i == 0 or any(peer.get(k) != v for peer in peers)}


def named(row: Row, rows: Sequence[Row]) -> str:
    """`relearn samples=100`: an attack and what tells its setting from its others."""
    return f"{row['attack']} {setting_words(telling(row, rows))}".rstrip()
