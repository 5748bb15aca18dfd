"""The audit of one request: what was asked, what was done, when, by which code, and what was found afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.cards.asked import Asked
from erulab.reporting.attack_rows import Standing
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.robustness import Robustness
from erulab.reporting.shown_figures import figures_worth_showing, row_count
from erulab.reporting.verdict import Verdict, judge_run, margin_of
from erulab.roles import ORACLE

FORMAT = 1  # of audit.json
UNLEARNED = "unlearned"
# Parts of the config that the unlearned weights depend on.
SETTINGS = ("model", "dataset", "method", "reward", "adversary", "trainer", "target", "seed", "plugins")
# What the command that measured last was, and where it ran: a repeat that finds everything in the cache changes it.
MEASURED_BY = "measured_by"

# What a reader of the audit must still see to.
LEFT_BEHIND = [
    "the model from before and the rows are in the cache folder, unless they were removed since",
    "the hash of a short text can be found by trying: keep this file as you keep the request",
]


@dataclass(frozen=True)
class Weights:
    """A model: its role in scores.json, the key of its weights, and the SHA-256 of each file of its folder."""

    role: str
    key: str
    files: Mapping[str, str]

    @property
    def plain(self) -> dict[str, Any]:
        return {"role": self.role, "key": self.key, "files": dict(self.files)}


@dataclass(frozen=True)
class Done:
    """What was done for one request.

    before: the model that it started from; None where the run has none (method=retrain without a target).
    after: the model that it led to.
    made: who made `after`, and when, as the cache's entry says; empty for a model that was given.
    seconds: of making it; None for a model that was given.
    """

    before: Weights | None
    after: Weights
    made: Mapping[str, Any]
    seconds: float | None


def audit(run: RunResult, asked: Asked, done: Done) -> dict[str, Any]:
    """Returns the content of audit.json; it holds hashes and ids of rows, and none of their texts.

    Args:
        run: the run folder with its figures, of which no file needs to be there.
        asked: the request.
        done: its models.
    """
    last = done.after.role == UNLEARNED
    judged = judge_run(run) if last else None
    content = asked.plain
    content["dataset"]["options"] = run.config.get("dataset", {})
    return {
        "format": FORMAT,
        "asked": content,
        "done": {
            "settings": {key: run.config[key] for key in SETTINGS if key in run.config},
            "before": None if done.before is None else done.before.plain,
            "after": done.after.plain,
        },
        "when": {"began": done.made.get("began"), "ended": done.made.get("ended"), "seconds": done.seconds},
        "by": _code(done.made),
        "figures": _figures(run, "" if done.before is None else done.before.role, done.after.role),
        "verdict": _verdict(run, judged),
        "attacks": [] if judged is None else [_attack(attack) for attack in judged.robustness],
        "limits": _limits(run, asked, judged),
        "left_behind": LEFT_BEHIND,
        MEASURED_BY: dict(run.env),
    }


def differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether two audits differ in more than the command that measured last."""
    return {**one, MEASURED_BY: None} != {**other, MEASURED_BY: None}


def _code(made: Mapping[str, Any]) -> dict[str, Any]:
    """Returns which code and which hardware made the weights; null where the cache does not say."""
    git = made.get("git")
    return {
        "erulab": made.get("erulab"),
        "git": None if git is None else str(git).removesuffix("-dirty"),
        "dirty": None if git is None else str(git).endswith("-dirty"),
        **{key: made.get(key) for key in ("torch", "transformers", "device", "processes", "threads")},
    }


def _figures(run: RunResult, before: str, after: str) -> dict[str, Any]:
    """Returns each figure worth showing, before and after the request and of the oracle, with its 95 % interval."""
    roles = {"before": before, "after": after, ORACLE: ORACLE}
    scores = {role: run.scores[role] for role in roles.values() if role in run.scores}
    extra = run.config.get("benchmark") or ()
    return {
        name: {
            when: {
                "value": number(run.scores[role].get(name)),
                "interval": run.intervals.get(role, {}).get(name),
                "rows": row_count(run.scores[role], name),
            }
            for when, role in roles.items()
            if number(run.scores.get(role, {}).get(name)) is not None
        }
        for name in figures_worth_showing(scores, (), extra, every=True)
    }


def _verdict(run: RunResult, judged: Verdict | None) -> dict[str, Any]:
    if judged is None:
        return {
            "label": "not judged",
            "sentences": ["the verdict is on the model after the last request: see its audit"],
        }
    unlearned = run.scores.get(UNLEARNED, {})
    return {
        "label": judged.label,
        "sentences": list(judged.sentences),
        "margin": margin_of(run),
        "knowledge_left": _with_ends(unlearned, "knowledge_left"),
        "utility_kept": _with_ends(unlearned, "utility_kept"),
    }


def _with_ends(figures: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns an estimate of scores.json with its 95 % and 90 % intervals; null where it is not defined."""
    value = {end: number(figures.get(f"{name}_{end}")) for end in ("low", "high", "low90", "high90")}
    return {
        "value": number(figures.get(name)),
        "interval95": [value["low"], value["high"]],
        "interval90": [value["low90"], value["high90"]],
    }


def _attack(attack: Robustness) -> dict[str, Any]:
    """Returns what one attack brought back. `outcome` is null where no setting of it counts."""
    left = attack.left
    return {
        "attack": attack.attack,
        "outcome": None if attack.outcome is None else attack.outcome.value,
        "standing": attack.standing.value,
        "settings": attack.settings,
        "strongest": attack.setting,
        "knowledge_left": None if left is None else left.value,
        "interval95": None if left is None else [left.low, left.high],
        "interval90": None if left is None else [left.low90, left.high90],
        "metric": attack.metric,
        "words": attack.words,
    }


def _limits(run: RunResult, asked: Asked, judged: Verdict | None) -> list[str]:
    """Returns what the audit does not show, one sentence each."""
    found = []
    if judged is None:
        found.append("no attack was tried on the model after this request: see the audit of the last one")
    else:
        facts = judged.forgetting.facts
        if facts is not None:
            found.append(f"knowledge left is measured on {facts} facts; others were not asked")
        found += _attack_limits(judged)
    if ORACLE not in run.scores:
        found.append("no model that never saw these rows was compared with")
    if asked.count > 1:
        found.append("the figures are of the rows of all requests of the data set, not of this request alone")
    if asked.trained_on < len(asked.rows):
        missing = len(asked.rows) - asked.trained_on
        found.append(f"{missing} of {len(asked.rows)} rows were too long for the model and were not trained on")
    if (run.config.get("model") or {}).get("name") != "tiny":  # whose weights are drawn at random
        found.append("whether the base model had met these rows in its own training is not known")
    return found


def _attack_limits(judged: Verdict) -> list[str]:
    tried = [attack.attack for attack in judged.robustness if attack.standing is Standing.counts]
    silent = [attack.attack for attack in judged.robustness if attack.standing is not Standing.counts]
    found = [f"robustness is known against {', '.join(tried)} alone" if tried else "no attack says how robust it is"]
    return found + ([f"these attacks did not count: {', '.join(silent)}"] if silent else [])
