"""A local judge: how probable it finds "yes" against "no" as its answer. Nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from erulab.data.rows import Row
from erulab.evaluation.judging.answers import Answer
from erulab.evaluation.judging.prompt import NO, YES
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded

TOGETHER = 64  # prompts that are scored before their answers are kept


class LocalJudge:
    """A causal language model with its own chat template, without the run's system turn or template."""

    def __init__(self, loaded: LoadedModel, batch_tokens: int, ranks: Ranks) -> None:
        self._loaded, self._batch_tokens, self._ranks = loaded, batch_tokens, ranks

    def ask(self, prompts: Sequence[str], keep: Callable[[Answer], None], stopped: Callable[[], bool]) -> None:
        """Asks on all ranks together; each rank is given all answers."""
        for first in range(0, len(prompts), TOGETHER):
            if any(self._ranks.gather_objects(stopped())):
                return
            some = prompts[first : first + TOGETHER]
            for prompt, value in zip(some, self.log_odds(some), strict=True):
                keep(Answer(prompt, "" if not value else (YES if value > 0 else NO)[0], value))

    def log_odds(self, prompts: Sequence[str]) -> list[float | None]:
        """Returns log P(yes) - log P(no) of each prompt, nats; None for a prompt that the model's context cannot hold.

        P(yes) is summed over the word's spellings in `YES`, without the end of turn; P(no) likewise.
        """
        rows = [self._encode(prompt) for prompt in prompts]
        requests = [encoded for row in rows if row is not None for words in row for encoded in words]
        loaded = self._loaded
        scores = score(loaded.policy, requests, loaded.pad_id, self._batch_tokens, self._ranks) if requests else []
        nll = {encoded.ids[: encoded.end]: one.nll for encoded, one in zip(requests, scores, strict=True)}
        return [
            None
            if row is None
            else _log_sum([nll[e.ids[: e.end]] for e in row[0]]) - _log_sum([nll[e.ids[: e.end]] for e in row[1]])
            for row in rows
        ]

    def _encode(self, prompt: str) -> tuple[list[Encoded], list[Encoded]] | None:
        """Encodes the prompt with each spelling of yes, and with each of no; None if there is no room."""
        chat, row = self._loaded.chat, Row("judge", prompt, "")
        room = max(len(chat.encode_text(word)) for word in YES + NO) + 1
        if len(chat.encode_prompt(row)) + room > chat.limit(None):
            return None

        def encode(words: Sequence[str]) -> list[Encoded]:
            found = [chat.encode(row, word, (0, len(word))) for word in words]
            # A tokenizer without capitals has one spelling, which must not count twice.
            return list({encoded.ids[: encoded.end]: encoded for encoded in found}.values())

        return encode(YES), encode(NO)


def _log_sum(nll: Sequence[float]) -> float:
    """Returns log(sum of exp(-nll)), which stays finite where every term underflows."""
    least = min(nll)
    return math.log(math.fsum(math.exp(least - one) for one in nll)) - least
