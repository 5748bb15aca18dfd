"""Lets a model run without some of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Model types whose blocks return their states inside a tuple; `check_layout` compares.
TUPLES = frozenset({"bamba", "bloom", "codegen", "falcon", "falcon_h1", "gpt_neo", "gptj", "mpt"})


@contextmanager
def skipped_blocks(blocks: Iterable[nn.Module], model_type: str) -> Iterator[None]:
    """Lets blocks return their input inside the context."""
    identity = _identity_in_tuple if model_type in TUPLES else _identity_block
    replaced = [(block, block.__dict__.get("forward")) for block in blocks]
    try:
        for block, _ in replaced:
            block.forward = identity
        yield
    finally:
        for block, forward in replaced:
            del block.forward
            if forward is not None:  # a compiled one
                block.forward = forward


def _identity_block(states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return states


def _identity_in_tuple(states: torch.Tensor, *arguments: Any, **options: Any) -> tuple[torch.Tensor, None]:
    return states, None
