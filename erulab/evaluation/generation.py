"""Generates responses, greedy or sampled.

Prompts of similar length share a batch, their common opening is computed once, and rows leave the batch as they end.
Where padding or a gap could change what a model says, its prompts share nothing (erulab/models/key_value.py).
A prompt may hold the beginning of its response (`begun`), up to all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from erulab import draws
from erulab.costs.flops import TokenCounts
from erulab.evaluation import texts
from erulab.evaluation.prompt import Prompt
from erulab.evaluation.scoring import Watch
from erulab.models.column_major import column_major
from erulab.models.key_value import allows_gaps, allows_padding, cache_for, select_rows
from erulab.models.loaded import LoadedModel
from erulab.models.meter import Meter
from erulab.ranks import Ranks

if TYPE_CHECKING:
    from erulab.tokens.chat import ChatFormat

# The common opening of a batch's prompts is computed once if that saves at least so many tokens.
SHARED = 32
# Matrices are stored by columns for at least so many steps of generation.
FEW = 32
# Ended rows are removed once they are this share of the batch; less often, because each removal copies the cache.
ENDED = 0.2


def generate(
    loaded: LoadedModel, prompts: Sequence[Prompt], batch_tokens: int, ranks: Ranks, watch: Watch | None = None
) -> list[str]:
    """Returns one response per prompt, in order; equal prompts are answered once.

    Args:
        batch_tokens: number of padded prompt and response tokens that a batch may have.
        watch: is told how many of this rank's prompts are answered.
    """
    unique = sorted(set(prompts), key=_batching_order)
    found = {p: _response(loaded.chat, p, _begun(p)) for p in unique if _is_complete(loaded.chat, p)}
    unique = [prompt for prompt in unique if prompt not in found]
    responses: list[str] = []
    own = ranks.mine(unique)
    together = allows_padding(loaded.model.config)
    batches = _cut_prompts(own, batch_tokens) if together else [[prompt] for prompt in own]
    # Turning the matrices over takes as long as a few tokens.
    pays = sum(_longest(batch) for batch in batches) >= FEW
    with column_major(loaded.model) if pays else nullcontext():
        for batch in batches:
            if watch is not None:
                watch("prompts answered", len(responses), len(own))
            responses += _Batch(loaded, batch).run()
    if watch is not None:
        watch("prompts answered", len(own), len(own))
    found |= zip(unique, ranks.join(responses), strict=True)
    return [found[prompt] for prompt in prompts]


def _batching_order(prompt: Prompt) -> tuple[Any, ...]:
    # Samples of one prompt stand next to each other, so that their common opening is computed once.
    draw = () if prompt.draw is None else (prompt.draw,)
    return len(prompt.ids), prompt.ids, prompt.max_new_tokens, prompt.stops, draw


def _begun(prompt: Prompt) -> list[int]:
    """Returns the ids of the response that the prompt already holds."""
    return list(prompt.ids[len(prompt.ids) - prompt.begun :])


def _is_complete(chat: ChatFormat, prompt: Prompt) -> bool:
    """Tells whether the response is over before a token of it is generated."""
    return prompt.max_new_tokens <= 0 or (prompt.begun > 0 and prompt.ids[-1] in chat.stop_ids)


def _response(chat: ChatFormat, prompt: Prompt, ids: Sequence[int]) -> str:
    """Returns the text of a response, without the token that ends it and what follows a stop."""
    text = chat.decode(ids[:-1] if ids and ids[-1] in chat.stop_ids else ids)
    return texts.cut_at(text, prompt.stops)


def _longest(prompts: Sequence[Prompt]) -> int:
    return max(prompt.max_new_tokens for prompt in prompts)


def _cut_prompts(prompts: Sequence[Prompt], batch_tokens: int) -> list[list[Prompt]]:
    """Cuts prompts in order of length into batches of about as many rows each, within the budget of tokens."""
    full = _fill_batches(prompts, batch_tokens, len(prompts))
    # A last batch of few rows would take almost as many seconds as a full one.
    return _fill_batches(prompts, batch_tokens, -(-len(prompts) // len(full))) if full else []


def _fill_batches(prompts: Sequence[Prompt], batch_tokens: int, most: int) -> list[list[Prompt]]:
    """Fills one batch after another, with at most so many rows each."""
    batches: list[list[Prompt]] = []
    for prompt in prompts:
        together = [*batches[-1], prompt] if batches else []
        if 0 < len(together) <= most and len(together) * (len(prompt.ids) + _longest(together)) <= batch_tokens:
            batches[-1].append(prompt)
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
        self._responses = [_begun(prompt) for prompt in prompts]
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
        for step in range(_longest(self._prompts)):
            for i, token in enumerate(tokens.tolist()):
                if not ended[i]:
                    self._responses[rows[i]].append(token)
                    ended[i] = step + 1 >= self._prompts[rows[i]].max_new_tokens or self._is_over(rows[i], token)
            if all(ended):
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
        # A row that has ended may still be in the batch.
        drawn = [i for i, row in enumerate(rows) if row in self._uniform and step < self._prompts[row].max_new_tokens]
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
        end = longest + _longest(self._prompts)
        if opening * (len(ids) - 1) < SHARED or not allows_gaps(self._loaded.model, end):
            opening = 0
        tokens = torch.full((len(ids), longest), self._loaded.pad_id)
        mask = torch.zeros((len(ids), longest), dtype=torch.int64)
        for i, row in enumerate(ids):
            rest = len(row) - opening
            tokens[i, :opening], tokens[i, longest - rest :] = torch.tensor(row[:opening]), torch.tensor(row[opening:])
            mask[i, :opening] = mask[i, longest - rest :] = 1
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        cache = cache_for(self._loaded.model.config, end)
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
        return _response(self._loaded.chat, self._prompts[row], self._responses[row])


def _common_opening(rows: Sequence[tuple[int, ...]]) -> int:
    """Counts the tokens that all rows begin with, at most one fewer than the shortest row has."""
    first, last = min(rows), max(rows)
    n = min(map(len, rows)) - 1
    return next((i for i in range(n) if first[i] != last[i]), n)
