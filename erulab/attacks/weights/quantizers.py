"""Rounds weights as quantised models store them and converts them back: by our own code or by other libraries.

Each function maps a weight (out, in) to one of the same shape and dtype, on CPU or GPU. Only the effect of rounding is
kept, not the libraries' fast multiplication.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.directions import at_least_float32

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")

GROUP = 32  # number of weights of an output channel that share one scale in torchao's 4 bits


def round_to_nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds to nearest with one symmetric scale per output channel.

    Args:
        weight: (out, in).
        bits: 2 to 8.
    Returns:
        (out, in) the nearest of 2^bits - 1 levels; |weight - result| <= scale / 2, scale = max|row| / (2^(bits-1) - 1).
    """
    codes, scale = nearest_codes(weight, bits)
    return (codes * scale).to(weight.dtype)


def nearest_codes(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `round_to_nearest` stores: (out, in) whole numbers as floats, and (out, 1) scales of the channels.

    Args: as `round_to_nearest`.
    """
    levels = 2 ** (bits - 1) - 1
    weight = at_least_float32(weight)  # in bfloat16 the quotient could be rounded to another level
    scale = weight.abs().amax(1, keepdim=True) / levels
    # A channel of zeros has scale 0 and stays zero.
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / safe).round().clamp(-levels, levels), scale


def round_as_bitsandbytes(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds as LLM.int8() does per row (8 bits), or as QLoRA's nf4 in blocks of 64 (4 bits; scales not quantised)."""
    from bitsandbytes import functional  # optional: only for backends=[bitsandbytes]

    if bits == 8:
        # The library's kernels and layers take half precision.
        rounded, scales, _ = functional.int8_vectorwise_quant(weight.half().contiguous())
        return functional.int8_vectorwise_dequant(rounded, scales).to(weight.dtype)
    packed, state = functional.quantize_4bit(weight.float().contiguous(), blocksize=64, quant_type="nf4")
    return functional.dequantize_4bit(packed, state).to(weight.dtype)


def round_as_torchao(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds as torchao's weight-only quantisation: 8 bits with one scale per channel, 4 bits with one per group.

    If the groups do not divide a channel, 4 bits have one scale per channel too.
    """
    from torchao import quantization  # optional: only for backends=[torchao]

    # skip_init, because random initial weights would take numbers from the global generator.
    layer = torch.nn.utils.skip_init(
        torch.nn.Linear, weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype
    )
    layer.weight.detach().copy_(weight)
    whole = bits == 8 or weight.shape[1] % GROUP
    granularity = quantization.PerAxis(0) if whole else quantization.PerGroup(GROUP)
    config = quantization.IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), granularity)
    quantization.quantize_(layer, config)
    return layer.weight.dequantize().to(weight.dtype)


# Backend -> (weight, bits=) -> weight.
QUANTIZERS: dict[str, Callable[..., torch.Tensor]] = {
    "rtn": round_to_nearest,
    "bitsandbytes": round_as_bitsandbytes,
    "torchao": round_as_torchao,
}
