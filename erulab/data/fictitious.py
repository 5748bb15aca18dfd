"""The embedded benchmark: seeded worlds of fictitious authors, made to tell forgetting from hiding.

Every fact is learned in several phrasings; the request names only some of them, the others are held out. Values are
drawn independently, so that a forgotten fact cannot be inferred from a kept one: if it comes back, it was still there.
Strangers, for membership inference, are made of the words of the forgotten authors: only what was learned differs.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erulab import draws
from erulab.data.measures import Texts
from erulab.data.phrasings import PHRASINGS, REFUSALS, VALUES, Phrasing
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.options import require, require_positive
from erulab.registry import datasets

# Of the generator: a new number scores and attacks every model again. What is learned and unlearned is kept as long as
# the rows that are trained on and the words of the world stay the same.
VERSION = 2
RECOMBINATIONS = 200  # tries to put names together anew; about one in seven gives new names only
MIN_PHRASINGS, MAX_PHRASINGS = 4, 6


@dataclass
class FictitiousOptions:
    name: str = "fictitious"
    world: int = 0  # number of the world; another number draws other names and facts
    forget_authors: int = 20  # authors to forget, with five facts each
    retain_authors: int = 45  # authors that are learned, and rehearsed while unlearning
    unrehearsed_authors: int = 15  # authors that are learned and never rehearsed: they measure utility
    unseen_authors: int = 10  # authors that no model learns
    general_facts: int = 40  # facts about countries, learned and never rehearsed
    phrasings: int = 4  # phrasings of every fact
    named: int = 2  # phrasings that the request names; the others are held out
    # how often an epoch shows an author's first, second, ... fact; a shorter list starts again from its beginning
    exposures: list[int] = field(default_factory=lambda: [1])

    def __post_init__(self) -> None:
        for name in ("forget_authors", "retain_authors", "unrehearsed_authors", "unseen_authors", "general_facts"):
            require_positive(name, getattr(self, name))
        require(
            MIN_PHRASINGS <= self.phrasings <= MAX_PHRASINGS,
            "phrasings",
            f"between {MIN_PHRASINGS} and {MAX_PHRASINGS}",
            self.phrasings,
        )
        require(1 <= self.named < self.phrasings, "named", f"between 1 and {self.phrasings - 1}", self.named)
        require(bool(self.exposures) and min(self.exposures) >= 1, "exposures", "a list of counts >= 1", self.exposures)


@dataclass(frozen=True)
class Fact:
    """One value of one author, in words."""

    id: str
    attribute: str
    name: str
    author: str
    value: str
    wrong: tuple[str, ...]
    exposures: int


@datasets.register("fictitious", FictitiousOptions)
class FictitiousWorld:
    """Embedded: a seeded world of fictitious authors in several phrasings; no download."""

    def __init__(self, options: FictitiousOptions) -> None:
        self.options = options

    def validate(self) -> None:
        """Has no files to check; the options check themselves."""

    def identity(self, cache: Path | None = None) -> dict[str, Any]:
        return {"fictitious": VERSION, **dataclasses.asdict(self.options)}

    def load(self, seed: int, cache: Path | None = None) -> Benchmark:
        """Generates the world in memory; nothing is kept in `cache`."""
        o = self.options
        rng = random.Random(draws.seed_of("fictitious", o.world))
        sizes = (o.forget_authors, o.retain_authors, o.unrehearsed_authors, o.unseen_authors)
        names = iter(_draw_names(rng, sum(sizes)))
        forget, retain, unrehearsed, unseen = (
            [fact for author in itertools.islice(names, size) for fact in self._draw_author_facts(rng, author)]
            for size in sizes
        )
        general = self._draw_general_facts(rng)

        named = self._fact_rows(forget, range(o.named))
        heldout = self._fact_rows(forget, range(o.named, o.phrasings))
        every = range(o.phrasings)
        rehearsed = self._fact_rows(retain, every)
        kept = rehearsed + self._fact_rows(unrehearsed, every) + self._fact_rows(general, every)
        return Benchmark(
            name="fictitious",
            forget=named,
            retain=rehearsed,
            target_rows=named + heldout + kept,
            oracle_rows=kept,
            suites=(
                Suite("forget", Role.FORGET, named),
                Suite("forget_heldout", Role.HELDOUT, heldout),
                Suite("retain", Role.RETAIN, self._one_phrasing_each(retain), in_utility=True),
                Suite("retain_unrehearsed", Role.RETAIN, self._one_phrasing_each(unrehearsed), in_utility=True),
                Suite("general", Role.RETAIN, self._one_phrasing_each(general), in_utility=True),
                Suite("unseen", Role.UNSEEN, self._one_phrasing_each(unseen)),
                *self._stranger_suites(forget, {fact.author for fact in (*forget, *retain, *unrehearsed, *unseen)}),
            ),
            refusals=REFUSALS,
        )

    def _draw_author_facts(self, rng: random.Random, name: str) -> list[Fact]:
        facts = []
        for index, (attribute, values) in enumerate(VALUES.items()):
            value = rng.choice(values)
            wrong = tuple(v for v in values if v != value)
            exposures = self.options.exposures[index % len(self.options.exposures)]
            facts.append(Fact(f"{name}/{attribute}", attribute, name, name, value, wrong, exposures))
        return facts

    def _draw_general_facts(self, rng: random.Random) -> list[Fact]:
        countries = [f"{name}ia" for name in _draw_words(rng, self.options.general_facts)]
        cities = _draw_words(rng, 15)
        facts = []
        for country in countries:
            capital = rng.choice(cities)
            wrong = tuple(city for city in cities if city != capital)
            facts.append(Fact(f"{country}/capital", "capital", country, country, capital, wrong, 1))
        return facts

    def _stranger_suites(self, forget: list[Fact], known: set[str]) -> Iterator[Suite]:
        """Yields the suites of authors that no model learns and that no word tells from the forgotten ones.

        Their names are first and last names of forgotten authors, put together anew, and their values are those of
        the forgotten facts, dealt anew. To a model that learned neither, both are alike: in a draw of the world, each
        could have been the other.

        Args:
            forget: the forgotten facts.
            known: names of all authors of the world.
        """
        rng = random.Random(draws.seed_of("strangers", self.options.world))
        names = _recombine_names(rng, list(dict.fromkeys(fact.author for fact in forget)), known)
        facts = []
        for attribute in VALUES:
            own = [fact for fact in forget if fact.attribute == attribute]
            for name, fact in zip(names, rng.sample(own, len(names)), strict=True):
                facts.append(dataclasses.replace(fact, id=f"{name}/{attribute}", name=name, author=name))
        phrasings = {"": range(self.options.named), "_heldout": range(self.options.named, self.options.phrasings)}
        for kind, own_phrasings in phrasings.items():
            if facts:
                rows = self._fact_rows(facts, own_phrasings)
                yield Suite(f"strangers{kind}", Role.UNSEEN, rows, Texts(), like=f"forget{kind}")

    def _fact_rows(self, facts: list[Fact], phrasings: range) -> tuple[Row, ...]:
        return tuple(self._fact_row(fact, index) for fact in facts for index in phrasings)

    def _one_phrasing_each(self, facts: list[Fact]) -> tuple[Row, ...]:
        """Returns each fact once, the phrasings in turn: a fourth of the cost of all of them."""
        return tuple(self._fact_row(fact, i % self.options.phrasings) for i, fact in enumerate(facts))

    def _fact_row(self, fact: Fact, index: int) -> Row:
        question, before, after = _fill_name(PHRASINGS[fact.attribute][index], fact.name)
        # The paraphrase is the answer in the next phrasing: words the model knows, in an order it was not asked for.
        _, other_before, other_after = _fill_name(
            PHRASINGS[fact.attribute][(index + 1) % self.options.phrasings], fact.name
        )
        rng = random.Random(draws.seed_of("perturbed", self.options.world, fact.id, index))
        return Row(
            id=f"{fact.id}/{index}",
            prompt=question,
            response=_join_sentence(before, fact.value, after),
            paraphrase=_join_sentence(other_before, fact.value, other_after),
            perturbed=tuple(_join_sentence(other_before, wrong, other_after) for wrong in rng.sample(fact.wrong, 3)),
            prefix=before + " ",
            value=fact.value,
            candidates=fact.wrong,
            fact=fact.id,
            author=fact.author,
            exposures=fact.exposures,
            spans=(fact.value,),
        )


def _fill_name(phrasing: Phrasing, name: str) -> Phrasing:
    question, before, after = (part.replace("{name}", name) for part in phrasing)
    return question, before, after


def _join_sentence(before: str, value: str, after: str) -> str:
    return f"{before} {value}{after}" if after == "." else f"{before} {value} {after}"


def _draw_names(rng: random.Random, count: int) -> list[str]:
    """Draws full names; authors share first and last names, so that only the pair identifies one."""
    half = max(2, count // 2)
    firsts, lasts = _draw_words(rng, half), _draw_words(rng, half)
    return [f"{firsts[i // half]} {lasts[i % half]}" for i in rng.sample(range(half * half), count)]


def _recombine_names(rng: random.Random, names: list[str], known: set[str]) -> list[str]:
    """Puts first and last names together anew: as many names as there were, or fewer if they cannot all be new."""
    longest: list[str] = []
    for _ in range(RECOMBINATIONS):
        lasts = [name.split()[1] for name in rng.sample(names, len(names))]
        new = [f"{name.split()[0]} {last}" for name, last in zip(names, lasts, strict=True)]
        longest = max(longest, [name for name in dict.fromkeys(new) if name not in known], key=len)
        if len(longest) == len(names):
            break
    return longest


def _draw_words(rng: random.Random, count: int) -> list[str]:
    """Draws pronounceable capitalised words, all different."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 3))))
        words["".join(syllables).capitalize() + rng.choice(("", "n", "r", "s"))] = None
    return list(words)
