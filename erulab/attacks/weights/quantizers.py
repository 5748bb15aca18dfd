"""Weights rounded as quantised models hold them, and put back as ordinary numbers: ours, and other libraries' own.

Each function takes and gives (out, in) and its own dtype, on CPU or GPU. Only what rounding does to the weights is
kept, and not how fast a library multiplies them.
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

GROUP = 32  # weights of an output channel that share a scale in torchao's 4 bits


def round_to_nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric round-to-nearest, one scale an output channel.

    Args:
        weight: (out, in); bits: 2 to 8.
    Returns:
        (out, in) the nearest of 2^bits - 1 levels; |weight - result| <= scale / 2, scale = max|row| / (2^(bits-1) - 1).
    """
    levels = 2 ** (bits - 1) - 1
    given, weight = (
        weight.dtype,
        at_least_float32(weight),
    )  # in bfloat16 the quotient itself would be rounded to another level
    scale = weight.abs().amax(1, keepdim=True) / levels
    # A channel of zeros has no scale and stays zero.
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((weight / safe).round().clamp(-levels, levels) * scale).to(given)


def bitsandbytes(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """LLM.int8()'s rows of 8 bits, or QLoRA's nf4 in blocks of 64 (without its second quantisation, of the scales)."""
    from bitsandbytes import functional  # installed by those who name it

    if bits == 8:
        # The library's kernels take half precision; so do its own layers.
        rounded, scales, _ = functional.int8_vectorwise_quant(weight.half())
        return functional.int8_vectorwise_dequant(rounded, scales).to(weight.dtype)
    packed, state = functional.quantize_4bit(weight.float().contiguous(), blocksize=64, quant_type="nf4")
    return functional.dequantize_4bit(packed, state).to(weight.dtype)


def torchao(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """torchao's weights alone: 8 bits with a scale a channel, 4 bits with a scale a group (a channel, if none fits)."""
    from torchao import quantization  # installed by those who name it

    # Not drawn at random first, which would take numbers from the global generator.
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
    "bitsandbytes": bitsandbytes,
    "torchao": torchao,
}
