"""Jailbreaks: nine prompt templates that try to make a model say what it was trained to withhold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.prompting.examples import forget_examples
from erulab.attacks.prompting.jailbreak_templates import TEMPLATES, AttackerKnowledge, apply_template, usable_share
from erulab.attacks.prompting.prompts import adversarial_suites, asked_suites, ordinary_suites, score_rewritten
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Suite
    from erulab.models.loaded import LoadedModel

PLAIN = "none"
OWN = {"prompts": "the data set's own"}
# A template is left out, and named in the setting, if fewer than this share of the rows have the data for it.
USABLE = 0.5


@dataclass
class JailbreakOptions:
    name: str = "jailbreak"
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))  # the templates that are tried

    def __post_init__(self) -> None:
        known = bool(self.templates) and set(self.templates) <= set(TEMPLATES)
        require(known, "templates", f"a list of some of {', '.join(TEMPLATES)}", self.templates)


@attacks.register("jailbreak", JailbreakOptions, paper="RWKU: Jin et al. 2024, arXiv:2406.10890")
class Jailbreak(Attack):
    """Nine prompt templates and the plain question, of which the best is chosen; RWKU's own adversarial probes."""

    repeats = 1  # nothing is drawn: the facts that may be shown are the validation half, as in every attack

    def __init__(self, options: JailbreakOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        own = [OWN] if adversarial_suites(benchmark) else []
        if own and not ordinary_suites(benchmark):
            return own
        usable = self._usable(benchmark, seed)
        if not usable:
            raise Inapplicable(f"no row has what templates={self.options.templates} are made of")
        setting: Setting = {"prompts": "templates"}
        left_out = [name for name in self.options.templates if name not in usable]
        if left_out:
            setting["left_out"] = left_out
        return [setting, *own]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return adversarial_suites(benchmark) if setting == OWN else asked_suites(benchmark)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        if setting == OWN:
            yield Attempt({}, partial(lab.score, subject))
            return
        # The plain question comes first: it is chosen if no template helps.
        yield Attempt({"template": PLAIN}, partial(lab.score, subject))
        known = attacker_knowledge(lab.benchmark, lab.repeat.seed)
        for name in self._usable(lab.benchmark, lab.repeat.seed):
            rewrite = partial(apply_template, name, known=known)
            yield Attempt({"template": name}, partial(score_rewritten, lab, subject, rewrite))

    def _usable(self, benchmark: Benchmark, seed: int) -> list[str]:
        """Returns the templates for which enough rows have the data."""
        rows = [row for suite in asked_suites(benchmark) for row in suite.rows]
        known = attacker_knowledge(benchmark, seed)
        return [name for name in self.options.templates if usable_share(name, rows, known) >= USABLE]


def attacker_knowledge(benchmark: Benchmark, seed: int) -> AttackerKnowledge:
    """Returns what the attacker knows about the data set."""
    holders: dict[str, set[str]] = {}
    for suite in asked_suites(benchmark):
        for row in suite.rows:
            if row.author and row.value:
                holders.setdefault(row.value, set()).add(row.author)
    return AttackerKnowledge(
        forget_examples(benchmark, seed), {value: frozenset(who) for value, who in holders.items()}
    )
