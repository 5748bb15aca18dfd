"""Hooks that edit hidden states while a context is open. No other adversary code touches modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from erulab.adversaries.base import HookablePolicy

if TYPE_CHECKING:
    import torch
    from torch import nn

# Maps (rows, length, width) hidden states to those that the model continues with. An edit works out of place and gives
# the same when it runs again: under gradient checkpointing the backward recomputes hooked modules.
Edit = Callable[["torch.Tensor"], "torch.Tensor"]


def module_at_layer(policy: HookablePolicy, layer: int) -> nn.Module:
    """Returns the module whose input is h_layer: block `layer`, or the final norm for layer = number of blocks."""
    return policy.norm if layer == len(policy.blocks) else policy.blocks[layer]


def residual_writers(policy: HookablePolicy) -> list[nn.Module]:
    """Returns attention and MLP of every block: with the embedding, they write all of the residual stream.

    Raises:
        TypeError: the layout of the blocks is not known, or they normalise a write before they add it.
    """
    found = []
    for block in policy.blocks:
        parts = dict(block.named_children())
        attention = parts.get("self_attn", parts.get("attn", parts.get("linear_attn")))
        if attention is None or "mlp" not in parts or "post_feedforward_layernorm" in parts:
            raise TypeError(
                f"what {type(block).__name__} writes to the residual stream is not known: adversary.sites=block_inputs "
                "does without, attack=abliterate cannot"
            )
        found += [attention, parts["mlp"]]
    return found


@contextmanager
def edit_states(
    policy: HookablePolicy, inputs: Sequence[tuple[nn.Module, Edit]], outputs: Sequence[tuple[nn.Module, Edit]] = ()
) -> Iterator[None]:
    """Edits the first input or the first output of modules while open; removes its hooks also after an exception.

    Args:
        policy: the model; an edit sees its states as (rows, length, width), whatever the layout of the forward.
        inputs: modules and the edits of their first input.
        outputs: modules and the edits of their output, or of its first element where it is a tuple.
    """
    handles = []
    try:
        for module, edit in inputs:
            handles.append(module.register_forward_pre_hook(_input_hook(_edit_rows(policy, edit))))
        for module, edit in outputs:
            handles.append(module.register_forward_hook(_output_hook(_edit_rows(policy, edit))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _edit_rows(policy: HookablePolicy, edit: Edit) -> Edit:
    def edit_rows(states: torch.Tensor) -> torch.Tensor:
        # (tokens, width): the final norm reads tokens off another layer (`Needs.lens`), whose own edits they have had.
        return states if states.dim() == 2 else policy.pack_states(edit(policy.unpack_states(states)))

    return edit_rows


def _input_hook(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (edit(args[0]), *args[1:])

    return hook


def _output_hook(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return hook
