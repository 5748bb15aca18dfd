"""GCG: searches by greedy coordinate gradient for a suffix at the end of the user's turn (Zou et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting
from erulab.attacks.optimising import optimised
from erulab.attacks.optimising.optimised import PromptMode
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.attacks.optimising.coordinates import BestSuffix
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.evaluation.row_score import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.insertion import InsertingChatFormat
else:
    torch = lazy_loader.load("torch")

ANSWER_TOKENS = 16  # the suffix is optimised for at most this many first tokens of a response


@dataclass
class GcgOptions:
    """The defaults of Zou et al., except `facts`: a search costs steps * width * facts forwards."""

    name: str = "gcg"
    mode: PromptMode = PromptMode.universal  # which rows share one suffix
    tokens: int = 20  # length of the suffix
    steps: int = 250  # steps of the search
    width: int = 512  # candidates per step
    topk: int = 256  # tokens considered per position
    facts: Optional[int] = 10  # universal: facts optimised on; per_item: facts attacked; null: all
    repeats: int = 3  # runs with other random draws

    def __post_init__(self) -> None:
        require_not_negative("tokens", self.tokens)
        require_not_negative("steps", self.steps)
        require_positive("width", self.width)
        require_positive("topk", self.topk)
        require(self.facts is None or self.facts >= 2, "facts", ">= 2 or null", self.facts)
        require_positive("repeats", self.repeats)


@attacks.register("gcg", GcgOptions, paper="Zou et al. 2023, arXiv:2307.15043")
class Gcg(Attack):
    """Appends a suffix to the user's text that makes the first tokens of the true answer probable.

    The suffix is inserted as ids, so its text need not be tokenised into the same ids. It begins as random tokens, not
    as twenty "!", which not every vocabulary has. Special tokens are never inserted.
    """

    options_told_by_setting = ("repeats",)

    def __init__(self, options: GcgOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        optimised.check_enough_facts(o.name, benchmark, o.mode)
        return [{"mode": o.mode.value, "tokens": o.tokens, "steps": o.steps, "width": o.width, "topk": o.topk}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return optimised.scored_suites(benchmark, self.options.mode, self.options.facts, repeat)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o = self.options
        # Not at the top: this file is imported where torch must not be.
        from erulab.models.soft_tokens import embeddings, first_soft_id
        from erulab.tokens.insertion import InsertingChatFormat, Place

        first = first_soft_id(subject.model)
        places = range(first, first + o.tokens)
        chat = InsertingChatFormat(subject.chat, lambda prompt: places, Place.user_turn)
        optimised.log_left_out(o.name, chat, self.scored(setting, lab.benchmark, lab.repeat))
        # Attempt 0 is the plain question: chosen if no searched suffix helps.
        yield Attempt(
            {"tokens": 0, "steps": 0}, lambda suites: lab.score(subject, optimised.suites_that_fit(chat, suites))
        )
        if not o.tokens:
            return
        targets = optimised.targets_that_fit(
            o.name, chat, optimised.target_rows(lab.benchmark, o.mode, o.facts, lab.repeat)
        )
        table = embeddings(subject.model)
        searches = {owner: self._search(subject, chat, owner, rows, table, lab) for owner, rows in targets.items()}
        done = -1
        for step in optimised.scored_steps(o.steps):
            # All searches advance together, so that the budget of an attempt is what was spent up to it.
            best = {owner: list(islice(search, step - done))[-1].ids for owner, search in searches.items()}
            done = step
            found = InsertingChatFormat(subject.chat, optimised.prompt_lookup(best, o.mode), Place.user_turn)
            yield Attempt(
                {"tokens": o.tokens, "steps": step}, partial(_score_with_suffix, subject, lab, chat, found), steps=step
            )

    def _search(
        self,
        subject: LoadedModel,
        chat: InsertingChatFormat,
        owner: str,
        rows: Sequence[Row],
        table: torch.Tensor,
        lab: Lab,
    ) -> Iterator[BestSuffix]:
        from erulab.attacks.optimising.coordinates import search_suffix
        from erulab.attacks.optimising.gradients import SuffixLoss, encode_target

        o = self.options
        allowed = _ordinary_tokens(subject, len(table))
        generator = torch.Generator().manual_seed(lab.repeat.seed_of(o.name, owner))
        first = allowed[torch.randint(len(allowed), (o.tokens,), generator=generator)].tolist()
        encoded = [encode_target(chat, row, ANSWER_TOKENS) for row in rows]
        loss = SuffixLoss(subject, encoded, table, lab.batch_tokens)
        return search_suffix(
            tuple(first),
            loss.of,
            loss.gradient,
            allowed.to(table.device),
            topk=o.topk,
            width=o.width,
            generator=generator,
        )


def _ordinary_tokens(subject: LoadedModel, vocabulary: int) -> torch.Tensor:
    """Returns the tokenizer's ids that are not special tokens, (tokens,) int64."""
    tokenizer = subject.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    # Some models have more embeddings than their tokenizer has tokens, and others have fewer.
    return torch.tensor([i for i in range(min(len(tokenizer), vocabulary)) if i not in special])


def _score_with_suffix(
    subject: LoadedModel, lab: Lab, places: InsertingChatFormat, found: InsertingChatFormat, suites: Sequence[Suite]
) -> list[RowScore]:
    return lab.score(replace(subject, chat=found), optimised.suites_that_fit(places, suites))
