"""A key-value cache that grows in place; transformers' own copies all of its content with every token."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionCacheLayerMixin

ROOM = 128  # positions to allocate at least when a layer has no room left


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, held at the beginning of larger tensors."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends new keys and values; returns all of them, (rows, heads, positions, width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        total = held + key_states.shape[2]
        if self._room is None or self._room[0].shape[2] < total:
            self._room = (
                _allocate(key_states, self.keys, held, total),
                _allocate(value_states, self.values, held, total),
            )
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, held:total] = new
        self.keys, self.values = (room[:, :, :total] for room in self._room)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._room = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None


def _allocate(new: torch.Tensor, held: torch.Tensor | None, count: int, total: int) -> torch.Tensor:
    """Allocates a tensor for `total` positions and more, and copies the `count` positions that are held into it.

    Args:
        new: (rows, heads, positions, width), for shape and type; held: the same, or None at the start.
    """
    rows, heads, _, width = new.shape
    room = new.new_empty(rows, heads, total + max(ROOM, total // 2), width)
    if held is not None and count:
        room[:, :, :count] = held
    return room


def cache_for(config: PreTrainedConfig) -> Cache | None:
    """Returns a cache for generation; None if the model's layers need other kinds of cache (sliding windows)."""
    text = config.get_text_config()
    if getattr(text, "sliding_window", None) is not None or getattr(text, "layer_types", None) is not None:
        return None
    return Cache(layer_class_to_replicate=GrowingLayer)


def allows_gaps(model: PreTrainedModel, length: int) -> bool:
    """Tells whether padding between tokens leaves a model's states as they are, in rows of up to `length` positions.

    The state of a recurrent layer decays over a gap, and a sliding window counts its positions.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return not model._is_stateful and (window is None or length <= window)


def select_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keeps some rows of a cache, in order of their indices `rows`."""
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
        # Recurrent layers have no method that selects, and this one takes fewer rows too.
        cache.reorder_cache(cast("torch.LongTensor", rows))
    else:
        cache.batch_select_indices(rows)
