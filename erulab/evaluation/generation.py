"""Responses, greedy or drawn: prompts of like length together, their common opening computed once, rows leaving as they
end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from erulab import draws
from erulab.costs.flops import TokenCounts
from erulab.evaluation import texts
from erulab.models.key_value import cache_for
from erulab.models.loaded import LoadedModel
from erulab.models.meter import Meter
from erulab.ranks import Ranks

# An opening that all prompts of a batch share is computed by itself if it is at least this long.
SHARED = 32
# Rows that have ended are taken out of the batch when they are this share of it: each time copies the cache.
ENDED = 0.2


@dataclass(frozen=True, order=True)
class Draw:
    """How a response is drawn token by token: by a generator of its own, so that no other row or sample changes it.

    temperature: > 0; what logits are divided by.
    """

    seed: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue, and for how long. draw: None: greedily."""

    ids: tuple[int, ...]
    max_new_tokens: int
    stops: tuple[str, ...] = ()  # the response ends before the first of them
    draw: Draw | None = None


def generate(loaded: LoadedModel, prompts: Sequence[Prompt], batch_tokens: int, ranks: Ranks) -> list[str]:
    """One response a prompt, in order; equal prompts are answered once.

    Args:
        batch_tokens: padded prompt and response tokens in memory at once.
    """
    unique = sorted(set(prompts), key=_order)
    responses: list[str] = []
    for batch in _batches(ranks.mine(unique), batch_tokens):
        responses += _Batch(loaded, batch).run()
    found = dict(zip(unique, ranks.join(responses), strict=True))
    return [found[prompt] for prompt in prompts]


def _order(prompt: Prompt) -> tuple[Any, ...]:
    # Samples of one prompt stand together: their common opening is computed once.
    draw = () if prompt.draw is None else (prompt.draw,)
    return prompt.max_new_tokens, prompt.stops, len(prompt.ids), prompt.ids, draw


def _batches(prompts: Sequence[Prompt], batch_tokens: int) -> list[list[Prompt]]:
    """Prompts that may be continued together: of one length of response, within the budget."""
    batches: list[list[Prompt]] = []
    for prompt in prompts:
        last = batches[-1] if batches else []
        alike = last and (last[0].max_new_tokens, last[0].stops) == (prompt.max_new_tokens, prompt.stops)
        if alike and (len(last) + 1) * (len(prompt.ids) + prompt.max_new_tokens) <= batch_tokens:
            last.append(prompt)
        else:
            batches.append([prompt])
    return batches


def drawn_tokens(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Token i of each row with probability softmax(logits)_i, where `uniform` is uniform in [0, 1).

    Args:
        logits: (rows, vocabulary) float64; uniform: (rows,) float64.
    Returns:
        (rows,) int64: the first token up to which the probabilities add up to more than the row's number.
    """
    # Divided by the last sum, which rounding may leave a little off 1.
    cumulated = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated / cumulated[:, -1:], uniform[:, None], right=True)[:, 0]


class _Batch:
    """Rows that are being continued. Pads stand between the common opening and the rest of a prompt."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[Prompt]) -> None:
        self._loaded, self._prompts = loaded, prompts
        self._stops = set(loaded.chat.stop_ids)
        self._device = next(loaded.model.parameters()).device
        self._responses: list[list[int]] = [[] for _ in prompts]
        self._meter = Meter(loaded.model, loaded.ledger, loaded.adapters)
        # What a token is drawn by depends on its place in the response alone, whoever is in the batch then.
        self._uniform = {
            i: torch.rand(prompt.max_new_tokens, generator=draws.generator(prompt.draw.seed), dtype=torch.float64)
            for i, prompt in enumerate(prompts)
            if prompt.draw is not None
        }

    def run(self) -> list[str]:
        """The responses' texts."""
        with torch.no_grad():
            self._continue()
        return [self._text(i) for i in range(len(self._prompts))]

    def _continue(self) -> None:
        logits, mask, cache = self._prefill()
        rows = list(range(len(self._prompts)))  # the prompt each row of the cache belongs to
        tokens = self._next(logits, rows, 0)
        ended = [False] * len(rows)
        for step in range(self._prompts[0].max_new_tokens):
            for i, token in enumerate(tokens.tolist()):
                if not ended[i]:
                    self._responses[rows[i]].append(token)
                    ended[i] = self._is_over(rows[i], token)
            if all(ended) or step + 1 == self._prompts[0].max_new_tokens:
                return
            if sum(ended) >= ENDED * len(rows):
                left = [i for i, over in enumerate(ended) if not over]
                index = torch.tensor(left, device=self._device)
                cache.batch_select_indices(index)
                tokens, mask = tokens[index], mask[index]
                rows, ended = [rows[i] for i in left], [False] * len(left)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits, cache = self._forward(tokens[:, None], mask, cache)
            tokens = self._next(logits, rows, step + 1)

    def _next(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> torch.Tensor:
        """(rows,) the next token of each row: the likeliest, or the one its generator draws.

        Args:
            logits: (rows, vocabulary).
        """
        tokens = logits.argmax(-1)
        drawn = [i for i, row in enumerate(rows) if row in self._uniform]
        if drawn:
            temperatures = [self._prompts[rows[i]].draw.temperature for i in drawn]  # type: ignore[union-attr]
            uniform = torch.stack([self._uniform[rows[i]][step] for i in drawn])
            scaled = logits[drawn].double() / torch.tensor(temperatures, dtype=torch.float64).to(logits.device)[:, None]
            tokens[drawn] = drawn_tokens(scaled, uniform.to(logits.device))
        return tokens

    def _prefill(self) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """(rows, vocabulary) logits of the first response tokens; the (rows, length) mask of real tokens; the cache."""
        ids = [prompt.ids for prompt in self._prompts]
        # The last token of a prompt is always its row's own: the first response token is read from it.
        opening = _common_length(ids)
        if opening < SHARED or len(ids) == 1:
            opening = 0
        longest = max(map(len, ids))
        tokens = torch.full((len(ids), longest), self._loaded.pad_id)
        mask = torch.zeros((len(ids), longest), dtype=torch.int64)
        for i, row in enumerate(ids):
            rest = len(row) - opening
            tokens[i, :opening], tokens[i, longest - rest :] = torch.tensor(row[:opening]), torch.tensor(row[opening:])
            mask[i, :opening] = mask[i, longest - rest :] = 1
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        cache = cache_for(self._loaded.model.config)
        if opening:
            _, cache = self._forward(tokens[:1, :opening], mask[:1, :opening], cache)
            cache.batch_repeat_interleave(len(ids))
        first, cache = self._forward(tokens[:, opening:], mask, cache)
        return first, mask, cache

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """(rows, vocabulary) logits of each row's next token, and the cache with `ids` in it.

        Args:
            ids: (rows, new); mask: (rows, cached + new).
        """
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self._loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._meter.forward(TokenCounts.continued(len(ids), ids.shape[1], mask.shape[1]), 0)
        return out.logits[:, -1], out.past_key_values

    def _is_over(self, row: int, token: int) -> bool:
        if token in self._stops:
            return True
        # Models with learned positions have none behind their context.
        if len(self._prompts[row].ids) + len(self._responses[row]) >= self._loaded.chat.limit(None):
            return True
        stops = self._prompts[row].stops
        return bool(stops) and self._text(row) != self._loaded.chat.decode(self._responses[row])

    def _text(self, row: int) -> str:
        ids = self._responses[row]
        text = self._loaded.chat.decode(ids[:-1] if ids and ids[-1] in self._stops else ids)
        return texts.cut_at(text, self._prompts[row].stops)


def _common_length(rows: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all rows begin with, at least one fewer than the shortest has."""
    first, last = min(rows), max(rows)
    n = min(map(len, rows)) - 1
    return next((i for i in range(n) if first[i] != last[i]), n)
