"""Jailbreaks: nine ways to ask that are meant to get round what a model was trained to withhold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.prompting.examples import forget_examples
from erulab.attacks.prompting.jailbreak_templates import TEMPLATES, Known, asked_by, share
from erulab.attacks.prompting.prompts import adversarial_suites, asked_suites, ordinary_suites, score_asked
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Suite
    from erulab.models.loaded import LoadedModel

PLAIN = "none"
OWN = {"prompts": "the data set's own"}
# Below this share of rows that a template can be used for, it is left out, and named.
USABLE = 0.5


@dataclass
class JailbreakOptions:
    name: str = "jailbreak"
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))  # those that are tried

    def __post_init__(self) -> None:
        known = bool(self.templates) and set(self.templates) <= set(TEMPLATES)
        require(known, "templates", f"a list of some of {', '.join(TEMPLATES)}", self.templates)


@attacks.register("jailbreak", JailbreakOptions, paper="RWKU: Jin et al. 2024, arXiv:2406.10890")
class Jailbreak(Attack):
    """Nine prompt templates and the question as it is, of which the best is kept; RWKU's own adversarial probes."""

    repeats = 1  # nothing is drawn: which facts may be shown is the validation half of every attack

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
        # Whoever has templates can also do without: where none helps, nothing is lost.
        yield Attempt({"template": PLAIN}, partial(lab.score, subject))
        known = known_of(lab.benchmark, lab.repeat.seed)
        for name in self._usable(lab.benchmark, lab.repeat.seed):
            rewrite = partial(asked_by, name, known=known)
            yield Attempt({"template": name}, partial(score_asked, lab, subject, rewrite))

    def _usable(self, benchmark: Benchmark, seed: int) -> list[str]:
        """The templates for which enough rows have the data."""
        rows = [row for suite in asked_suites(benchmark) for row in suite.rows]
        known = known_of(benchmark, seed)
        return [name for name in self.options.templates if share(name, rows, known) >= USABLE]


def known_of(benchmark: Benchmark, seed: int) -> Known:
    """What the attacker knows of the data set."""
    holders: dict[str, set[str]] = {}
    for suite in asked_suites(benchmark):
        for row in suite.rows:
            if row.author and row.value:
                holders.setdefault(row.value, set()).add(row.author)
    return Known(forget_examples(benchmark, seed), {value: frozenset(who) for value, who in holders.items()})
