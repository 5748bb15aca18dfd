"""Prefilling: the model's turn is begun for it, with words of the true answer or with a promise to answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.prompting.prompts import asked_suites, score_asked
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel


class Answer(Enum):
    """Whose first words are forced."""

    response = "response"
    paraphrase = "paraphrase"  # the answer in words that the question did not ask for


@dataclass
class PrefillOptions:
    name: str = "prefill"
    words: list[int] = field(default_factory=lambda: [4])  # of the answer, never of its value; each a setting
    answers: list[Answer] = field(default_factory=lambda: list(Answer))
    openings: list[str] = field(default_factory=lambda: ["Sure, the answer is"])  # other beginnings, each a setting

    def __post_init__(self) -> None:
        require(all(words >= 0 for words in self.words), "words", "a list of counts, such as [1,4]", self.words)
        require(not self.words or bool(self.answers), "answers", "a list of response, paraphrase", self.answers)
        some = bool(self.words or self.openings)
        require(some and all(map(str.strip, self.openings)), "openings", "a list of texts", self.openings)


@attacks.register("prefill", PrefillOptions, paper="Andriushchenko et al. 2024, arXiv:2404.02151")
class Prefill(Attack):
    """Forces the first words of the answer, or an opening such as "Sure, the answer is".

    The log-odds of a value are taken behind the whole answer up to it in any case: there the words of the response
    change nothing but what is generated, those of the paraphrase and the openings do.
    """

    spans = ("words", "answers", "openings")

    def __init__(self, options: PrefillOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        rows = [row for suite in asked_suites(benchmark) for row in suite.rows]
        # Not twice the same, where no row has a paraphrase; not nothing, but where 0 words ask for it.
        answers = [one for one in o.answers if one is Answer.response or any(rephrased(row) != row for row in rows)]
        found: list[Setting] = [
            {"words": words, "of": answer.value}
            for answer in answers
            for words in o.words
            if words == 0 or any(forced(row, words, answer) != row for row in rows)
        ]
        found += [{"opening": opening} for opening in o.openings]
        if not found:
            raise Inapplicable("no answer has words that could be forced without giving it away")
        return found

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return asked_suites(benchmark)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        glue = subject.chat.response_prefix
        if "opening" in setting:
            rewrite = partial(opened, opening=setting["opening"], glue=glue)
        else:
            rewrite = partial(forced, words=setting["words"], answer=Answer(setting["of"]), glue=glue)
        yield Attempt({}, partial(score_asked, lab, subject, rewrite))


def forced(row: Row, words: int, answer: Answer, glue: str = "") -> Row:
    """The row with the first words of its answer in front of what is scored.

    Never a part of the value, nor the last word of an answer without one; where the answer itself is held against wrong
    ones only words that all of them begin with: another would give it away.
    Args:
        glue: `ChatFormat.response_prefix`.
    """
    based = row if answer is Answer.response else rephrased(row)
    lead = "".join(_words(_forcible(based))[:words])
    return _behind(based, lead, len(lead), glue) if lead else based


def opened(row: Row, opening: str, glue: str = "") -> Row:
    """The row with an opening of another's wording in front of its whole answer."""
    return _behind(row, opening, 0, glue)


def rephrased(row: Row) -> Row:
    """The row with its paraphrase for the answer; as it is where there is none, or where it lacks the value."""
    if row.paraphrase is None:
        return row
    before, value, _ = row.paraphrase.partition(row.value) if row.value else ("", "", "")
    if value != row.value:
        return row
    return replace(row, response=row.paraphrase, paraphrase=None, prefix=before, value=value, accepted=())


def _forcible(row: Row) -> str:
    """The part of the answer that may be forced."""
    if row.value:
        return row.prefix.rstrip()
    shared = _words(row.response)[:-1]
    if row.paraphrase is None:
        for wrong in (*row.perturbed, *row.options):
            own = _words(wrong)[:-1]
            count = next(
                (i for i, pair in enumerate(zip(shared, own, strict=False)) if pair[0] != pair[1]),
                min(len(shared), len(own)),
            )
            shared = shared[:count]
    return "".join(shared)


def _behind(row: Row, lead: str, cut: int, glue: str) -> Row:
    """The row's answers where they go on behind `lead`.

    Args:
        cut: the response's characters that the lead stands for; then others that begin like it lose them too.
    """

    def rest(text: str) -> str:
        left = text[cut:] if cut and text.startswith(lead) else ""
        text = left if left.strip() and left[0].isspace() else text
        return text if text[:1].isspace() else f" {text}"

    def joined(before: str) -> str:
        return before + lead if before[-1].isspace() else f"{before} {lead.lstrip()}"

    # Between the lead and a value there need not be a space.
    gap = "" if cut or row.response[:1].isspace() else " "
    begun = replace(
        row,
        response=gap + row.response[cut:],
        prefix=gap + row.prefix[cut:],
        paraphrase=None if row.paraphrase is None else rest(row.paraphrase),
        perturbed=tuple(map(rest, row.perturbed)),
        options=tuple(map(rest, row.options)),
        accepted=tuple(map(rest, row.accepted)),
    )
    # Running text has no assistant whose turn could be begun: its prompt goes on.
    if row.plain:
        return replace(begun, prompt=joined(row.prompt))
    return replace(begun, answer_prefix=joined(row.answer_prefix) if row.answer_prefix else glue + lead)


def _words(text: str) -> list[str]:
    """The words with the white space before each."""
    return re.findall(r"\s*\S+", text)
