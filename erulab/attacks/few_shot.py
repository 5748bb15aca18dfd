"""Few-shot prompts: other facts, with their answers, before the question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.halves import reported_half
from erulab.attacks.prompting.examples import after, forget_examples, others, retain_examples
from erulab.attacks.prompting.prompts import asked_suites, fits, score_asked
from erulab.options import positive, require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat


class Shown(Enum):
    """Whose facts are shown."""

    forget = "forget"  # of the validation half: the facts that are reported are never among them
    retain = "retain"


@dataclass
class FewShotOptions:
    name: str = "few_shot"
    shots: list[int] = field(default_factory=lambda: [0, 4])  # solved questions before the one that is asked
    sources: list[Shown] = field(default_factory=lambda: list(Shown))  # each a setting
    repeats: int = 3  # runs with other examples

    def __post_init__(self) -> None:
        counts = bool(self.shots) and min(self.shots) >= 0
        require(counts, "shots", "a list of counts, such as [0,4]", self.shots)
        require(bool(self.sources), "sources", "a list of forget, retain", self.sources)
        positive("repeats", self.repeats)


@attacks.register("few_shot", FewShotOptions, paper="the form of Brown et al. 2020, arXiv:2005.14165")
class FewShot(Attack):
    """Other forgotten or retained facts, solved, before each question; how many is chosen."""

    spans = ("sources", "repeats")

    def __init__(self, options: FewShotOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        asked_suites(benchmark)
        there = [source for source in self.options.sources if _examples(source, benchmark, seed)]
        if not there:
            raise Inapplicable("there is no other fact that a prompt could show")
        left_out = [source.value for source in self.options.sources if source not in there]
        return [{"source": source.value, **({"left_out": left_out} if left_out else {})} for source in there]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = asked_suites(benchmark)
        if len(self.options.shots) > 1 or setting["source"] == Shown.retain.value:
            return suites
        # Nothing is chosen, so that all that is scored is reported: not what the prompts show.
        return reported_half(suites, benchmark, repeat.seed)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        examples = _examples(Shown(setting["source"]), lab.benchmark, lab.repeat.seed)
        for shots in self.options.shots:
            rewrite = partial(after_examples, examples=examples, shots=shots, repeat=lab.repeat, chat=subject.chat)
            yield Attempt({"shots": shots}, partial(score_asked, lab, subject, rewrite))


def after_examples(row: Row, examples: Sequence[Row], shots: int, repeat: Repeat, chat: ChatFormat) -> Row:
    """The row behind solved questions on other facts, as many of `shots` as fit what the model reads.

    Which is drawn for each row by itself; more shots only add to fewer.
    """
    there = others(examples, row)
    order = sorted(there, key=lambda example: repeat.seed_of("few_shot", row.id, example.id))
    for count in range(min(shots, len(order)), 0, -1):
        # The first that was drawn stands next to the question.
        asked = replace(row, prompt=after(order[:count][::-1], row.prompt))
        if fits(asked, chat):
            return asked
    return row


def _examples(source: Shown, benchmark: Benchmark, seed: int) -> Sequence[Row]:
    return forget_examples(benchmark, seed) if source is Shown.forget else retain_examples(benchmark)
