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
from erulab.data.words import split_written
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel


class ForcedAnswer(Enum):
    """The answer whose first words are forced."""

    response = "response"
    paraphrase = "paraphrase"  # the answer in other words


@dataclass
class PrefillOptions:
    name: str = "prefill"
    # numbers of words of the answer that are forced, never of its value; each is a setting
    words: list[int] = field(default_factory=lambda: [4])
    # answers whose words are forced; each is a setting
    answers: list[ForcedAnswer] = field(default_factory=lambda: list(ForcedAnswer))
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
        response_prefix = subject.chat.response_prefix
        if "opening" in setting:
            rewrite = partial(force_opening, opening=setting["opening"], response_prefix=response_prefix)
        else:
            rewrite = partial(
                force_words, words=setting["words"], answer=ForcedAnswer(setting["of"]), response_prefix=response_prefix
            )
        yield Attempt({}, partial(score_rewritten, lab, subject, rewrite))


def force_words(row: Row, words: int, answer: ForcedAnswer, response_prefix: str = "") -> Row:
    """Returns the row with the first words of its answer before the text that is scored.

    A part of the value is never forced, nor the last word of an answer without a value. If the answer is compared with
    wrong answers, only words with which all of them begin are forced: any other word would give the answer away.

    Args:
        words: number of words to force.
        answer: which answer's words.
        response_prefix: `ChatFormat.response_prefix`.
    """
    based = row if answer is ForcedAnswer.response else with_paraphrase_as_answer(row)
    beginning = "".join(_split_words(_forcible_part(based))[:words])
    return _begin_answer(based, beginning, len(beginning), response_prefix) if beginning else based


def force_opening(row: Row, opening: str, response_prefix: str = "") -> Row:
    """Returns the row with an opening before its whole answer."""
    return _begin_answer(row, opening, 0, response_prefix)


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


def _begin_answer(row: Row, beginning: str, cut: int, response_prefix: str) -> Row:
    """Returns the row with its answers as continuations of `beginning`.

    Args:
        beginning: the text that begins the model's turn.
        cut: number of the response's characters that the beginning contains; they are removed from every answer that
            starts with it. 0 if the beginning is not a part of the response.
        response_prefix: see `force_words`.
    """

    def rest(text: str) -> str:
        left = text[cut:] if cut and text.startswith(beginning) else ""
        text = left if left.strip() and left[0].isspace() else text
        return text if text[:1].isspace() else f" {text}"

    def joined(before: str) -> str:
        return before + beginning if before[-1].isspace() else f"{before} {beginning.lstrip()}"

    # There may be no space between the beginning and a value.
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
    # Running text has no model turn that could be begun: the beginning continues the prompt.
    if row.plain:
        return replace(begun, prompt=joined(row.prompt))
    return replace(begun, answer_prefix=joined(row.answer_prefix) if row.answer_prefix else response_prefix + beginning)


def _split_words(text: str) -> list[str]:
    """Splits a text into words, or characters in scripts without spaces; each keeps the white space before it."""
    return [piece for word in re.findall(r"\s*\S+", text) for piece in split_written(word)]
