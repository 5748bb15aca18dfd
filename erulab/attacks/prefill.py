"""Prefilling: begins the model's turn with words of the true answer or with a promise to answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.prompting.prompts import asked_suites, score_rewritten
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel


class ForcedAnswer(Enum):
    """Which answer's first words are forced."""

    response = "response"
    paraphrase = "paraphrase"  # the answer in other words


@dataclass
class PrefillOptions:
    name: str = "prefill"
    words: list[int] = field(
        default_factory=lambda: [4]
    )  # numbers of words of the answer, never of its value; each is a setting
    answers: list[ForcedAnswer] = field(default_factory=lambda: list(ForcedAnswer))  # whose first words; each a setting
    openings: list[str] = field(default_factory=lambda: ["Sure, the answer is"])  # other beginnings; each is a setting

    def __post_init__(self) -> None:
        require(all(words >= 0 for words in self.words), "words", "a list of counts, such as [1,4]", self.words)
        require(not self.words or bool(self.answers), "answers", "a list of response, paraphrase", self.answers)
        some = bool(self.words or self.openings)
        require(some and all(map(str.strip, self.openings)), "openings", "a list of texts", self.openings)


@attacks.register("prefill", PrefillOptions, paper="Andriushchenko et al. 2024, arXiv:2404.02151")
class Prefill(Attack):
    """Forces the first words of the answer, or an opening such as "Sure, the answer is".

    The log-odds of a value are always computed after the answer up to the value. So the first words of the response
    change only what is generated, and the paraphrase's words and the openings are the attack on log-odds.
    """

    options_told_by_setting = ("words", "answers", "openings")

    def __init__(self, options: PrefillOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        rows = [row for suite in asked_suites(benchmark) for row in suite.rows]
        # The paraphrase is left out if no row has one, because its setting would repeat the response's. So is a number
        # of words above 0 that forces nothing.
        answers = [
            one
            for one in o.answers
            if one is ForcedAnswer.response or any(with_paraphrase_as_answer(row) != row for row in rows)
        ]
        found: list[Setting] = [
            {"words": words, "of": answer.value}
            for answer in answers
            for words in o.words
            if words == 0 or any(force_words(row, words, answer) != row for row in rows)
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
            rewrite = partial(force_opening, opening=setting["opening"], glue=glue)
        else:
            rewrite = partial(force_words, words=setting["words"], answer=ForcedAnswer(setting["of"]), glue=glue)
        yield Attempt({}, partial(score_rewritten, lab, subject, rewrite))


def force_words(row: Row, words: int, answer: ForcedAnswer, glue: str = "") -> Row:
    """Returns the row with the first words of its answer before the text that is scored.

    A part of the value is never forced, nor the last word of an answer without a value. If the answer is compared with
    wrong answers, only words with which all of them begin are forced: any other word would give the answer away.

    Args:
        words: number of words to force.
        answer: which answer's words.
        glue: `ChatFormat.response_prefix`.
    """
    based = row if answer is ForcedAnswer.response else with_paraphrase_as_answer(row)
    lead = "".join(_split_words(_forcible_part(based))[:words])
    return _begin_answer(based, lead, len(lead), glue) if lead else based


def force_opening(row: Row, opening: str, glue: str = "") -> Row:
    """Returns the row with an opening before its whole answer."""
    return _begin_answer(row, opening, 0, glue)


def with_paraphrase_as_answer(row: Row) -> Row:
    """Returns the row with its paraphrase as the answer; unchanged if it has none or if the value is not in it."""
    if row.paraphrase is None:
        return row
    before, value, _ = row.paraphrase.partition(row.value) if row.value else ("", "", "")
    if value != row.value:
        return row
    return replace(row, response=row.paraphrase, paraphrase=None, prefix=before, value=value, accepted=())


def _forcible_part(row: Row) -> str:
    """Returns the part of the answer that may be forced."""
    if row.value:
        return row.prefix.rstrip()
    shared = _split_words(row.response)[:-1]
    if row.paraphrase is None:
        for wrong in (*row.perturbed, *row.options):
            own = _split_words(wrong)[:-1]
            count = next(
                (i for i, pair in enumerate(zip(shared, own, strict=False)) if pair[0] != pair[1]),
                min(len(shared), len(own)),
            )
            shared = shared[:count]
    return "".join(shared)


def _begin_answer(row: Row, lead: str, cut: int, glue: str) -> Row:
    """Returns the row with its answers as continuations of `lead`.

    Args:
        lead: the text that begins the model's turn.
        cut: number of the response's characters that the lead contains. They are removed from every answer that begins
            with the lead; 0 if the lead is not a part of the response.
        glue: see `force_words`.
    """

    def rest(text: str) -> str:
        left = text[cut:] if cut and text.startswith(lead) else ""
        text = left if left.strip() and left[0].isspace() else text
        return text if text[:1].isspace() else f" {text}"

    def joined(before: str) -> str:
        return before + lead if before[-1].isspace() else f"{before} {lead.lstrip()}"

    # There may be no space between the lead and a value.
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
    # Running text has no model turn that could be begun: the lead continues the prompt.
    if row.plain:
        return replace(begun, prompt=joined(row.prompt))
    return replace(begun, answer_prefix=joined(row.answer_prefix) if row.answer_prefix else glue + lead)


def _split_words(text: str) -> list[str]:
    """Splits a text into words; each keeps the white space before it."""
    return re.findall(r"\s*\S+", text)
