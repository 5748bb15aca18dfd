"""Soft prompts: vectors behind the prompt, optimised until the model gives the answer (Schwinn et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting
from erulab.attacks.optimising import optimised
from erulab.attacks.optimising.optimised import Mode
from erulab.options import not_negative, positive, require
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.data.rows import Benchmark, Suite
    from erulab.evaluation.evaluate import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.insertion import Inserted
else:
    torch = lazy_loader.load("torch")


@dataclass
class SoftPromptOptions:
    """Schwinn et al. step by 1e-3 whatever the model. Here steps are in units of the embeddings' root mean square:
    where that is .02, as when weights are first drawn, .05 of it is 1e-3."""

    name: str = "soft_prompt"
    mode: Mode = Mode.universal
    tokens: int = 20
    steps: int = 100
    step: float = 0.05  # of each entry a step, times the root mean square of the embeddings' entries
    facts: Optional[int] = 50  # universal: trained on; per item: attacked; null: all
    repeats: int = 3

    def __post_init__(self) -> None:
        not_negative("tokens", self.tokens)
        not_negative("steps", self.steps)
        positive("step", self.step)
        require(self.facts is None or self.facts >= 2, "facts", ">= 2 or null", self.facts)
        positive("repeats", self.repeats)


@attacks.register("soft_prompt", SoftPromptOptions, paper="Schwinn et al. 2024, arXiv:2402.09063")
class SoftPrompt(Attack):
    """Vectors right before the response, moved by the sign of the gradient of the true answers' NLL.

    They stand behind the whole prompt, as in the authors' code: who can put vectors in can put them there, and running
    text has no user's turn. They begin as the embeddings of tokens drawn at random, not of twenty "!", which not every
    vocabulary has.
    """

    spans = ("repeats",)

    def __init__(self, options: SoftPromptOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        optimised.check(o.name, benchmark, o.mode)
        return [{"mode": o.mode.value, "tokens": o.tokens, "steps": o.steps, "step": o.step}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return optimised.scored(benchmark, self.options.mode, self.options.facts, repeat)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o = self.options
        # Not at the top: this file is imported where torch must not be.
        from erulab.attacks.optimising.gradients import nll_and_gradient, wanted
        from erulab.models.soft_tokens import embeddings, first_soft_id
        from erulab.tokens.insertion import Inserted, Place

        targets = optimised.targets(lab.benchmark, o.mode, o.facts, lab.repeat)
        first, n = first_soft_id(subject.model), o.tokens
        own = {owner: range(first + i * n, first + (i + 1) * n) for i, owner in enumerate(targets)}
        chat = Inserted(subject.chat, optimised.of_owner(own, o.mode), Place.response)
        optimised.tell_left_out(o.name, chat, self.scored(setting, lab.benchmark, lab.repeat))
        # Whom no prompt serves best uses none.
        yield Attempt({"tokens": 0, "steps": 0}, lambda suites: lab.score(subject, optimised.fitting(chat, suites)))
        if not o.tokens:
            return
        rows = [row for rows in optimised.fitting_targets(o.name, chat, targets).values() for row in rows]
        encoded = [wanted(chat, row) for row in rows]
        table = embeddings(subject.model)
        size = o.step * table.float().square().mean().sqrt()
        vectors = torch.cat([self._drawn(table, lab.repeat, owner) for owner in targets])
        stops = optimised.points(o.steps)
        for step in range(o.steps + 1):
            if step in stops:
                chosen: Setting = {"tokens": o.tokens, "steps": step}
                yield Attempt(chosen, partial(_score, subject, lab, chat, vectors), steps=step)
            if step < o.steps:
                _, gradient = nll_and_gradient(subject, encoded, vectors)
                vectors = vectors - size * gradient.sign()

    def _drawn(self, table: torch.Tensor, repeat: Repeat, owner: str) -> torch.Tensor:
        """(tokens, width) embeddings of tokens drawn for one prompt."""
        generator = torch.Generator().manual_seed(repeat.seed_of(self.options.name, owner))
        drawn = torch.randint(len(table), (self.options.tokens,), generator=generator)
        return table[drawn.to(table.device)].float()


def _score(
    subject: LoadedModel, lab: Lab, chat: Inserted, vectors: torch.Tensor, suites: Sequence[Suite]
) -> list[RowScore]:
    from erulab.models.soft_tokens import soft_tokens

    with soft_tokens(subject.model, vectors):
        return lab.score(replace(subject, chat=chat), optimised.fitting(chat, suites))
