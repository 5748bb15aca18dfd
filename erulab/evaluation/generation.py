"""Generates responses, greedy or sampled.

Prompts of similar length share a batch, their common opening is computed once, and rows leave the batch as they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from erulab import draws
from erulab.costs.flops import TokenCounts
from erulab.evaluation import texts
from erulab.evaluation.prompt import Prompt
from erulab.models.key_value import allows_gaps, cache_for, select_rows
from erulab.models.loaded import LoadedModel
from erulab.models.meter import Meter
from erulab.ranks import Ranks

# Tokens: the common opening of a batch's prompts is computed once if it is at least this long.
SHARED = 32
# Ended rows are removed once they are this share of the batch; less often, because each removal copies the cache.
ENDED = 0.2


def generate(loaded: LoadedModel, prompts: Sequence[Prompt], batch_tokens: int, ranks: Ranks) -> list[str]:
    """Returns one response per prompt, in order; equal prompts are answered once.

    Args:
        batch_tokens: number of padded prompt and response tokens that a batch may have.
    """
    unique = sorted(set(prompts), key=_batching_order)
    responses: list[str] = []
    for batch in _cut_prompts(ranks.mine(unique), batch_tokens):
        responses += _Batch(loaded, batch).run()
    found = dict(zip(unique, ranks.join(responses), strict=True))
    return [found[prompt] for prompt in prompts]


def _batching_order(prompt: Prompt) -> tuple[Any, ...]:
    # Samples of one prompt stand next to each other, so that their common opening is computed once.
    draw = () if prompt.draw is None else (prompt.draw,)
    return prompt.max_new_tokens, prompt.stops, len(prompt.ids), prompt.ids, draw


def _cut_prompts(prompts: Sequence[Prompt], batch_tokens: int) -> list[list[Prompt]]:
    """Cuts sorted prompts into batches: equal response length and stops, within the budget of tokens."""
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
    """Samples one token per row: token i with probability softmax(logits)_i.

    Args:
        logits: (rows, vocabulary) float64.
        uniform: (rows,) float64 random numbers in [0, 1), one per row.
    Returns:
        (rows,) int64: the first token at which the cumulated probability exceeds the row's random number.
    """
    # The last cumulated probability differs from 1 by rounding, so divide by it.
    cumulated = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated / cumulated[:, -1:], uniform[:, None], right=True)[:, 0]


class _Batch:
    """One batch during generation. Padding stands between the common opening and the rest of each prompt."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[Prompt]) -> None:
        self._loaded, self._prompts = loaded, prompts
        self._stops = set(loaded.chat.stop_ids)
        self._device = next(loaded.model.parameters()).device
        self._responses = [list(prompt.ids[len(prompt.ids) - prompt.begun :]) for prompt in prompts]
        self._meter = Meter(loaded.model, loaded.ledger, loaded.adapters)
        # One random number per position of the response, so that a sample does not depend on the rest of the batch.
        self._uniform = {
            i: torch.rand(prompt.max_new_tokens, generator=draws.generator(prompt.draw.seed), dtype=torch.float64)
            for i, prompt in enumerate(prompts)
            if prompt.draw is not None
        }

    def run(self) -> list[str]:
        """Returns the responses' texts, in order of the prompts."""
        with torch.no_grad():
            self._continue()
        return [self._text(i) for i in range(len(self._prompts))]

    def _continue(self) -> None:
        logits, mask, cache = self._prefill()
        rows = list(range(len(self._prompts)))  # index of the prompt that each row of the cache belongs to
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
                select_rows(cache, index)
                tokens, mask = tokens[index], mask[index]
                rows, ended = [rows[i] for i in left], [False] * len(left)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits, cache = self._forward(tokens[:, None], mask, cache)
            tokens = self._next(logits, rows, step + 1)

    def _next(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> torch.Tensor:
        """Returns the next token of each row, (rows,): the most probable one, or a sampled one.

        Args:
            logits: (rows, vocabulary).
            rows: index of each row's prompt.
            step: position in the response, from 0.
        """
        tokens = logits.argmax(-1)
        drawn = [i for i, row in enumerate(rows) if row in self._uniform]
        if drawn:
            temperatures = [self._prompts[rows[i]].draw.temperature for i in drawn]  # type: ignore[union-attr]
            uniform = torch.stack([self._uniform[rows[i]][step] for i in drawn])
            scaled = logits[drawn].double() / torch.tensor(temperatures, dtype=torch.float64).to(logits.device)[:, None]
            if step == 0:
                for i, row in enumerate(drawn):
                    excluded = self._prompts[rows[row]].draw.excluded  # type: ignore[union-attr]
                    if excluded >= 0:
                        scaled[i, excluded] = -torch.inf
            tokens[drawn] = drawn_tokens(scaled, uniform.to(logits.device))
        return tokens

    def _prefill(self) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Runs the prompts.

        Returns:
            (rows, vocabulary) logits of the first response tokens, the (rows, length) mask of real tokens, the cache.
        """
        ids = [prompt.ids for prompt in self._prompts]
        # The common opening leaves out each prompt's last token: the first response token is predicted from it.
        opening = _common_opening(ids)
        longest = max(map(len, ids))
        end = longest + self._prompts[0].max_new_tokens
        if opening < SHARED or len(ids) == 1 or not allows_gaps(self._loaded.model, end):
            opening = 0
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
        """Returns (rows, vocabulary) logits of each row's next token, and the cache extended by `ids`.

        Args:
            ids: (rows, new tokens).
            mask: (rows, cached + new tokens), 1 for real tokens.
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
        # Models with learned positions cannot read beyond their context.
        prompt = self._prompts[row]
        if len(prompt.ids) - prompt.begun + len(self._responses[row]) >= self._loaded.chat.limit(None):
            return True
        stops = prompt.stops
        return bool(stops) and self._text(row) != self._loaded.chat.decode(self._responses[row])

    def _text(self, row: int) -> str:
        ids = self._responses[row]
        text = self._loaded.chat.decode(ids[:-1] if ids and ids[-1] in self._stops else ids)
        return texts.cut_at(text, self._prompts[row].stops)


def _common_opening(rows: Sequence[tuple[int, ...]]) -> int:
    """Counts the tokens that all rows begin with, at most one fewer than the shortest row has."""
    first, last = min(rows), max(rows)
    n = min(map(len, rows)) - 1
    return next((i for i in range(n) if first[i] != last[i]), n)
