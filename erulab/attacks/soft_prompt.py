"""Soft prompts: vectors after the prompt, optimised until the model gives the answer (Schwinn et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting
from erulab.attacks.optimising import optimised
from erulab.attacks.optimising.optimised import PromptMode
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.data.rows import Benchmark, Suite
    from erulab.evaluation.row_score import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.insertion import InsertingChatFormat
else:
    torch = lazy_loader.load("torch")


@dataclass
class SoftPromptOptions:
    """Schwinn et al. use an absolute step of 1e-3 for every model. Here the step is relative to the root mean square of
    the embeddings: if that is 0.02, as in freshly initialised weights, 0.05 of it is 1e-3."""

    name: str = "soft_prompt"
    mode: PromptMode = PromptMode.universal  # which rows share one soft prompt
    tokens: int = 20  # number of vectors
    steps: int = 100  # steps of the optimisation
    step: float = 0.05  # change of each entry per step, relative to the root mean square of the embeddings
    facts: Optional[int] = 50  # universal: facts optimised on; per_item: facts attacked; null: all
    repeats: int = 3  # runs with other random draws

    def __post_init__(self) -> None:
        require_not_negative("tokens", self.tokens)
        require_not_negative("steps", self.steps)
        require_positive("step", self.step)
        require(self.facts is None or self.facts >= 2, "facts", ">= 2 or null", self.facts)
        require_positive("repeats", self.repeats)


@attacks.register("soft_prompt", SoftPromptOptions, paper="Schwinn et al. 2024, arXiv:2402.09063")
class SoftPrompt(Attack):
    """Inserts vectors right before the response and moves them by the sign of the gradient of the true answers' NLL.

    They stand after the whole prompt, as in the authors' code: an attacker who can insert vectors can insert them
    there, and running text has no user's turn. They begin as embeddings of random tokens, not of twenty "!", which not
    every vocabulary has.
    """

    options_told_by_setting = ("repeats",)

    def __init__(self, options: SoftPromptOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        optimised.check_enough_facts(o.name, benchmark, o.mode)
        return [{"mode": o.mode.value, "tokens": o.tokens, "steps": o.steps, "step": o.step}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return optimised.scored_suites(benchmark, self.options.mode, self.options.facts, repeat)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o = self.options
        # Not at the top: this file is imported where torch must not be.
        from erulab.attacks.optimising.gradients import encode_target, nll_and_gradient
        from erulab.models.soft_tokens import embeddings, first_soft_id
        from erulab.tokens.insertion import InsertingChatFormat, Place

        targets = optimised.target_rows(lab.benchmark, o.mode, o.facts, lab.repeat)
        first, n = first_soft_id(subject.model), o.tokens
        own = {owner: range(first + i * n, first + (i + 1) * n) for i, owner in enumerate(targets)}
        chat = InsertingChatFormat(subject.chat, optimised.prompt_lookup(own, o.mode), Place.response)
        optimised.log_left_out(o.name, chat, self.scored(setting, lab.benchmark, lab.repeat))
        # Attempt 0 is the plain question: chosen if no optimised prompt helps.
        yield Attempt(
            {"tokens": 0, "steps": 0}, lambda suites: lab.score(subject, optimised.suites_that_fit(chat, suites))
        )
        if not o.tokens:
            return
        rows = [row for rows in optimised.targets_that_fit(o.name, chat, targets).values() for row in rows]
        encoded = [encode_target(chat, row) for row in rows]
        table = embeddings(subject.model)
        size = o.step * table.float().square().mean().sqrt()
        vectors = torch.cat([self._random_embeddings(table, lab.repeat, owner) for owner in targets])
        stops = optimised.scored_steps(o.steps)
        for step in range(o.steps + 1):
            if step in stops:
                chosen: Setting = {"tokens": o.tokens, "steps": step}
                yield Attempt(chosen, partial(_score_with_vectors, subject, lab, chat, vectors), steps=step)
            if step < o.steps:
                _, gradient = nll_and_gradient(subject, encoded, vectors)
                vectors = vectors - size * gradient.sign()

    def _random_embeddings(self, table: torch.Tensor, repeat: Repeat, owner: str) -> torch.Tensor:
        """Returns the embeddings of random tokens for one prompt, (tokens, width)."""
        generator = torch.Generator().manual_seed(repeat.seed_of(self.options.name, owner))
        drawn = torch.randint(len(table), (self.options.tokens,), generator=generator)
        return table[drawn.to(table.device)].float()


def _score_with_vectors(
    subject: LoadedModel, lab: Lab, chat: InsertingChatFormat, vectors: torch.Tensor, suites: Sequence[Suite]
) -> list[RowScore]:
    from erulab.models.soft_tokens import soft_tokens

    with soft_tokens(subject.model, vectors):
        return lab.score(replace(subject, chat=chat), optimised.suites_that_fit(chat, suites))
