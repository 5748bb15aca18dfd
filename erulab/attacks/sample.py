"""Sampling: a model that withholds the answer in greedy decoding may give it in one of several samples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from erulab import draws
from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting, scores_from_figures
from erulab.data.measures import Generated, Texts
from erulab.data.words import has_words, holds_words, is_latin, split_words
from erulab.evaluation.prompt import Draw, Prompt
from erulab.evaluation.suites import forget_suites
from erulab.options import require, require_positive
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat


def leak_at(k: int, samples: int, leaks: int) -> float:
    """Returns 1 - C(n - c, k) / C(n, k): the probability that k of n samples contain at least one of the c that leak.

    Args:
        k: number of samples drawn without replacement, 1 to n.
        samples: n.
        leaks: c, the number of samples that contain the answer, 0 to n.
    Source: the unbiased estimator of pass@k (Chen et al. 2021, arXiv:2107.03374).
    """
    return 1 - math.comb(samples - leaks, k) / math.comb(samples, k)


@dataclass
class SampleOptions:
    name: str = "sample"
    samples: int = 16  # responses sampled per row
    k: list[int] = field(default_factory=lambda: [1, 8])  # numbers k of samples for which leak@k is computed
    temperature: float = 1.0  # of sampling; the logits are divided by it
    max_new_tokens: int = 64  # longest sampled response
    rows: int = 60  # rows per suite, each on another fact
    recall: float = 0.9  # ROUGE-L recall from which a sample counts as containing an answer that is not a single value

    def __post_init__(self) -> None:
        require_positive("samples", self.samples)
        inside = bool(self.k) and min(self.k) >= 1 and max(self.k) <= self.samples
        require(inside, "k", f"a list of numbers between 1 and samples={self.samples}", self.k)
        require_positive("temperature", self.temperature)
        require_positive("max_new_tokens", self.max_new_tokens)
        require_positive("rows", self.rows)
        require(0 < self.recall <= 1, "recall", "in (0, 1]", self.recall)


@attacks.register("sample", SampleOptions, paper="the unbiased estimator of pass@k, Chen et al. 2021, arXiv:2107.03374")
class Sample(Attack):
    """leak@k: the probability that one of k samples contains the answer, and whether the greedy response does."""

    own_figures = True
    repeats = 1  # leak@k already averages over all subsets of the n samples of a row

    def __init__(self, options: SampleOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        if not self.scored({}, benchmark, Repeat(seed)):
            raise Inapplicable(
                "no forget row that is measured has a prompt and an answer with words to be found in samples"
            )
        return [{"samples": o.samples, "temperature": o.temperature, "rows": o.rows}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        found = []
        for suite in forget_suites(benchmark):
            answered = [
                row for row in suite.rows if row.prompt and row.response and has_words(row.value or row.response)
            ]
            if answered and not isinstance(suite.measure, Texts):
                found.append(replace(suite, rows=_draw_rows(answered, self.options.rows, repeat)))
        return tuple(found)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        # Not at the top: this file is imported where torch must not be.
        from erulab.evaluation.generation import generate
        from erulab.ranks import Ranks

        o = self.options
        suites = self.scored(setting, lab.benchmark, lab.repeat)
        asked = [
            (row, _sample_prompt(suite, row, subject.chat, o.max_new_tokens)) for suite in suites for row in suite.rows
        ]
        # A prompt that fills the model's context leaves no room for an answer.
        fitting = [(row, prompt) for row, prompt in asked if prompt.max_new_tokens > 0]
        rows, prompts = [row for row, _ in fitting], [prompt for _, prompt in fitting]
        drawn = [
            replace(prompt, draw=Draw(lab.repeat.seed_of("sample", row.id, i), o.temperature))
            for row, prompt in zip(rows, prompts, strict=True)
            for i in range(o.samples)
        ]
        answer = partial(generate, subject, batch_tokens=lab.batch_tokens, ranks=Ranks())
        samples = answer(drawn)
        own = [samples[first : first + o.samples] for first in range(0, len(samples), o.samples)]
        figures = {}
        for row, texts, greedy in zip(rows, own, answer(prompts), strict=True):
            leaks = sum(contains_answer(row, text, o.recall) for text in texts)
            found = {f"leak_{k}": leak_at(k, o.samples, leaks) for k in o.k}
            figures[row.id] = {**found, "leak_greedy": float(contains_answer(row, greedy, o.recall))}
        yield Attempt({}, partial(scores_from_figures, figures))


def contains_answer(row: Row, text: str, recall: float) -> bool:
    """Returns whether a text contains the row's answer; case and punctuation do not matter.

    A value is contained if its words occur one after another. The answer of a multiple-choice question must be at the
    beginning of the text, because its letter can occur anywhere. Any other answer, or one of the accepted answers, is
    contained if its ROUGE-L recall is at least `recall`; 1 allows only additional words in between. Rows whose answer
    has no word are not sampled.
    """
    # Not at the top: nltk and rouge_score load slowly, and composing a run does not need them.
    from erulab.evaluation.texts import rouge_recall

    words = _lower_words if is_latin(row.value or row.response) else split_words
    if row.value:
        return holds_words(words(text), words(row.value))
    if row.options:
        answer = words(row.response)
        return words(text)[: len(answer)] == answer
    answers = [answer for answer in (row.response, *row.accepted) if has_words(answer)]
    return any(rouge_recall(answer, text) >= recall for answer in answers)


def _lower_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _draw_rows(rows: Sequence[Row], count: int, repeat: Repeat) -> tuple[Row, ...]:
    """Returns up to `count` rows on different facts, in the suite's order; the seed draws facts and phrasings."""
    order = sorted(rows, key=lambda row: repeat.seed_of("sample", "rows", row.fact_id, row.id))
    one_each: dict[str, Row] = {}
    for row in order:
        one_each.setdefault(row.fact_id, row)
    facts = sorted(one_each, key=lambda fact: draws.seed_of(repeat.seed, "attack", "sample", fact))
    kept = {one_each[fact].id for fact in facts[:count]}
    return tuple(row for row in rows if row.id in kept)


def _sample_prompt(suite: Suite, row: Row, chat: ChatFormat, max_new_tokens: int) -> Prompt:
    ids = tuple(chat.encode_prompt(row))
    stops = suite.measure.stops if isinstance(suite.measure, Generated) else ()
    return Prompt(ids, min(max_new_tokens, chat.limit(None) - len(ids)), stops)
