"""Few-shot prompts: other questions with their answers come before the question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.halves import reported_half
from erulab.attacks.prompting.examples import forget_examples, join_examples, other_facts, retain_examples
from erulab.attacks.prompting.prompts import asked_suites, fits_context, score_rewritten
from erulab.options import require, require_positive
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat


class ExampleSource(Enum):
    """The facts that a prompt shows."""

    forget = "forget"  # forgotten facts of the validation half, which is not reported
    retain = "retain"


@dataclass
class FewShotOptions:
    name: str = "few_shot"
    # numbers of solved questions before the question; one is chosen
    shots: list[int] = field(default_factory=lambda: [0, 4])
    # facts that a prompt may show; each is a setting
    sources: list[ExampleSource] = field(default_factory=lambda: list(ExampleSource))
    repeats: int = 3  # runs with other examples

    def __post_init__(self) -> None:
        counts = bool(self.shots) and min(self.shots) >= 0
        require(counts, "shots", "a list of counts, such as [0,4]", self.shots)
        require(bool(self.sources), "sources", "a list of forget, retain", self.sources)
        require_positive("repeats", self.repeats)


@attacks.register("few_shot", FewShotOptions, paper="the form of Brown et al. 2020, arXiv:2005.14165")
class FewShot(Attack):
    """Puts solved questions on other forgotten or retained facts before each question; their number is chosen."""

    options_told_by_setting = ("sources", "repeats")

    def __init__(self, options: FewShotOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        asked_suites(benchmark)
        there = [source for source in self.options.sources if _examples_of(source, benchmark, seed)]
        if not there:
            raise Inapplicable("there is no other fact that a prompt could show")
        left_out = [source.value for source in self.options.sources if source not in there]
        return [{"source": source.value, **({"left_out": left_out} if left_out else {})} for source in there]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = asked_suites(benchmark)
        if len(self.options.shots) > 1 or setting["source"] == ExampleSource.retain.value:
            return suites
        # Nothing is chosen, and every scored row is reported. The prompts show validation facts, so these are left out.
        return reported_half(suites, benchmark, repeat.seed)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        examples = _examples_of(ExampleSource(setting["source"]), lab.benchmark, lab.repeat.seed)
        for shots in self.options.shots:
            rewrite = partial(put_examples_before, examples=examples, shots=shots, repeat=lab.repeat, chat=subject.chat)
            yield Attempt({"shots": shots}, partial(score_rewritten, lab, subject, rewrite))


def put_examples_before(row: Row, examples: Sequence[Row], shots: int, repeat: Repeat, chat: ChatFormat) -> Row:
    """Returns the row with up to `shots` solved questions on other facts before its question.

    There are as many as fit the model's context. They are drawn per row, and more shots only add examples.

    Args:
        examples: rows that may be shown; those on the row's own fact are skipped.
    """
    there = other_facts(examples, row)
    order = sorted(there, key=lambda example: repeat.seed_of("few_shot", row.id, example.id))
    for count in range(min(shots, len(order)), 0, -1):
        # The example that was drawn first stands right before the question.
        asked = replace(row, prompt=join_examples(order[:count][::-1], row.prompt))
        if fits_context(asked, chat):
            return asked
    return row


def _examples_of(source: ExampleSource, benchmark: Benchmark, seed: int) -> Sequence[Row]:
    return forget_examples(benchmark, seed) if source is ExampleSource.forget else retain_examples(benchmark)
