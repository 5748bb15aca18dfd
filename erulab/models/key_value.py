"""A key-value cache that grows in place; transformers' own copies all of its content with every token."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionCacheLayerMixin

# Model types whose responses from padded batches are those of one prompt at a time (tests/models/test_generation.py
# compares each). Prompts of all others are answered one at a time: padding reaches the states of some, such as MiniMax.
PADDED = frozenset(
    [
        "apertus",
        "arcee",
        "bamba",
        "biogpt",
        "bitnet",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5",
        "exaone4",
        "falcon",
        "falcon_h1",
        "flex_olmo",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "glm",
        "glm4",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gpt_oss",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "helium",
        "hunyuan_v1_dense",
        "internlm3",
        "jamba",
        "jetmoe",
        "lfm2",
        "lfm2_moe",
        "llama",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_moe",
        "qwen3_next",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
        "vaultgemma",
        "zamba",
    ]
)
# Layers that see a token by its position alone, so that a gap in front of it changes nothing.
ATTENDING = frozenset({"full_attention", "sliding_attention"})


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, held at the beginning of tensors with room for all positions to come.

    The operating system hands out memory as it is written, so that room which is never used costs nothing.
    """

    def __init__(self, length: int, *arguments: Any, **options: Any) -> None:
        """`length`: positions that the layer will hold."""
        super().__init__(*arguments, **options)
        self._length = length
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends new keys and values; returns all of them, (rows, heads, positions, width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        total = held + key_states.shape[2]
        if self._room is None:
            self._room = (
                _allocate(key_states, self.keys, held, self._length),
                _allocate(value_states, self.values, held, self._length),
            )
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, held:total] = new
        return self._hold(total)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._room = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self._room is None:
            super().batch_select_indices(indices)
            return
        held, count = self.get_seq_length(), len(indices)
        for room in self._room:
            room[:count, :, :held] = room[:, :, :held].index_select(0, indices)
        self._room = (self._room[0][:count], self._room[1][:count])
        self._hold(held)

    def _hold(self, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._room is not None
        keys, values = (room[:, :, :total] for room in self._room)
        self.keys, self.values = keys, values
        return keys, values


def _allocate(new: torch.Tensor, held: torch.Tensor | None, count: int, length: int) -> torch.Tensor:
    """Allocates a tensor for `length` positions, and copies the `count` positions that are held into it.

    Args:
        new: (rows, heads, positions, width), for shape and type; held: the same, or None at the start.
    """
    rows, heads, _, width = new.shape
    room = new.new_empty(rows, heads, length, width)
    if held is not None and count:
        room[:, :, :count] = held
    return room


def cache_for(config: PreTrainedConfig, length: int) -> Cache | None:
    """Returns a cache for generation of up to `length` positions, padding included; None if the model's layers need
    other kinds of cache (sliding windows).
    """
    text = config.get_text_config()
    if getattr(text, "sliding_window", None) is not None or getattr(text, "layer_types", None) is not None:
        return None
    return Cache(layer_class_to_replicate=cast("type[GrowingLayer]", partial(GrowingLayer, length)))


def allows_padding(config: PreTrainedConfig) -> bool:
    """Tells whether padding before a row is known to leave the model's states as they are."""
    return config.get_text_config().model_type in PADDED


def allows_gaps(model: PreTrainedModel, length: int) -> bool:
    """Tells whether padding between tokens leaves a model's states as they are, in rows of up to `length` positions.

    The state of a recurrent or convolutional layer decays over a gap, and a sliding window counts its positions.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    attends = ATTENDING.issuperset(getattr(config, "layer_types", None) or ())
    return allows_padding(config) and attends and not model._is_stateful and (window is None or length <= window)


def cached_difference(model: PreTrainedModel, ids: torch.Tensor) -> float:
    """Returns how far logits after a filled cache are from those without a cache, as a share of the largest logit.

    Args:
        ids: (1, length), of which all but the last two tokens fill the cache in one forward.
    Raises:
        AttributeError, TypeError, ValueError: the model's forward has no cache of keys, values and states.
    """
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0, -2:]
        seen = model(input_ids=ids[:, :-2], attention_mask=torch.ones_like(ids[:, :-2]), use_cache=True)
        found = []
        for end in (ids.shape[1] - 1, ids.shape[1]):
            mask = torch.ones_like(ids[:, :end])
            seen = model(
                input_ids=ids[:, end - 1 : end],
                attention_mask=mask,
                position_ids=mask.cumsum(1)[:, -1:] - 1,
                past_key_values=seen.past_key_values,
                use_cache=True,
            )
            found.append(seen.logits[0, -1])
    return float((torch.stack(found) - expected).abs().max() / expected.abs().max())


def select_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keeps some rows of a cache, in order of their indices `rows`."""
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
        # Recurrent layers have no method that selects, and this one takes fewer rows too.
        cache.reorder_cache(cast("torch.LongTensor", rows))
    else:
        cache.batch_select_indices(rows)
