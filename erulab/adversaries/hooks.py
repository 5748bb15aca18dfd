"""Edits of hidden states while a context is open: the only adversary code that touches modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from erulab.adversaries.base import HookablePolicy

if TYPE_CHECKING:
    import torch
    from torch import nn

# (rows, length, width) hidden states -> what the model goes on with; out of place, and the same when it runs again
# (gradient checkpointing recomputes hooked modules in backward).
Edit = Callable[["torch.Tensor"], "torch.Tensor"]


def site(policy: HookablePolicy, layer: int) -> nn.Module:
    """The module whose input is h_layer: block `layer`, or the final norm for layer = number of blocks."""
    return policy.norm if layer == len(policy.blocks) else policy.blocks[layer]


def writers(policy: HookablePolicy) -> list[nn.Module]:
    """Attention and MLP of every block: with the embedding, all that is ever added to the residual stream.

    Raises:
        TypeError: the blocks' layout is not known, or they normalise a write before they add it.
    """
    found = []
    for block in policy.blocks:
        parts = dict(block.named_children())
        attention = parts.get("self_attn", parts.get("attn"))
        if attention is None or "mlp" not in parts or "post_feedforward_layernorm" in parts:
            raise TypeError(
                f"what {type(block).__name__} writes to the residual stream is not known: adversary.sites=block_inputs "
                "does without, attack=abliterate cannot"
            )
        found += [attention, parts["mlp"]]
    return found


@contextmanager
def edited(
    policy: HookablePolicy, inputs: Sequence[tuple[nn.Module, Edit]], outputs: Sequence[tuple[nn.Module, Edit]] = ()
) -> Iterator[None]:
    """Edits the first input or the (first) output of modules; hooks are gone afterwards, also after an exception.

    Edits see rows, however the policy lays them out for its forward.
    """
    handles = []
    try:
        for module, edit in inputs:
            handles.append(module.register_forward_pre_hook(_on_input(_as_rows(policy, edit))))
        for module, edit in outputs:
            handles.append(module.register_forward_hook(_on_output(_as_rows(policy, edit))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_rows(policy: HookablePolicy, edit: Edit) -> Edit:
    return lambda states: policy.pack_states(edit(policy.unpack_states(states)))


def _on_input(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (edit(args[0]), *args[1:])

    return hook


def _on_output(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return hook
