"""Greedy responses, generated in batches of like length with a key-value cache."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from erulab.costs.flops import Rows
from erulab.models.loaded import LoadedModel
from erulab.models.meter import Meter
from erulab.ranks import Ranks


def generate(
    loaded: LoadedModel, prompts: Sequence[str], max_new_tokens: int, batch_tokens: int, ranks: Ranks
) -> list[str]:
    """One greedy response a prompt, in order; equal prompts are answered once.

    Args:
        batch_tokens: padded prompt and response tokens in memory at once.
    """
    unique = sorted(set(prompts), key=lambda prompt: (len(prompt), prompt))
    mine = [(prompt, loaded.chat.encode_prompt(prompt)) for prompt in ranks.mine(unique)]
    responses: list[str] = []
    longest = max((len(ids) for _, ids in mine), default=0)
    size = max(1, batch_tokens // (longest + max_new_tokens))
    for first in range(0, len(mine), size):
        ids = _greedy(loaded, [ids for _, ids in mine[first : first + size]], max_new_tokens)
        responses.extend(loaded.chat.decode(row) for row in ids)
    found = dict(zip(unique, ranks.join(responses), strict=True))
    return [found[prompt] for prompt in prompts]


def _greedy(loaded: LoadedModel, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Token ids after each prompt, up to the first stop token. Pads on the left, with positions from lengths."""
    model = loaded.model
    device = next(model.parameters()).device
    length = max(len(ids) for ids in prompts)
    ids = torch.full((len(prompts), length), loaded.pad_id, dtype=torch.int64)
    mask = torch.zeros((len(prompts), length), dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        ids[i, length - len(prompt) :] = torch.tensor(prompt)
        mask[i, length - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    stops = torch.tensor(loaded.chat.stop_ids, device=device)
    stopped = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    tokens = []
    cache = None
    with torch.no_grad():
        for _ in range(max_new_tokens):
            out = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache = out.past_key_values
            token = out.logits[:, -1].argmax(-1)
            tokens.append(token)
            stopped = stopped | torch.isin(token, stops)
            if bool(stopped.all()):
                break
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], 1)
            positions = positions[:, -1:] + 1
    meter = Meter(model, loaded.ledger, loaded.adapters)
    meter.forward(Rows.generated(len(prompts), length, len(tokens)), 0)
    rows = torch.stack(tokens, 1).tolist()
    return [list(itertools.takewhile(lambda token: token not in loaded.chat.stop_ids, row)) for row in rows]
