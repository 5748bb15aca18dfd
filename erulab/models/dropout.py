"""Turns dropout off: erulab trains without it."""

from __future__ import annotations

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout rate to zero, so that training mode (which gradient checkpointing needs) drops nothing."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Rates that layers keep as plain numbers; Mixtral's multiplies what its experts read by random numbers.
        for name in ("attention_dropout", "dropout", "jitter_noise"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
