"""Models whose blocks' linear layers are held in 4 bits (QLoRA, Dettmers et al. 2023), to train adapters on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import BitsAndBytesConfig

from erulab.errors import EnvironmentFault
from erulab.models.loaded import LoadedModel
from erulab.models.loading import check_layout, read_folder
from erulab.models.options import Attention
from erulab.tokens.templates import NO_OVERRIDES, PromptOverrides

BLOCK = 64  # weights that share a scale in nf4


def load_quantized(
    source: str,
    attention: Attention,
    device: torch.device,
    computes_in: torch.dtype,
    overrides: PromptOverrides = NO_OVERRIDES,
) -> LoadedModel:
    """Loads a folder as `loading.load_folder`, but onto a device and with nf4 weights in the blocks' linear layers.

    One tensor after another is read and rounded, so that the device never holds the whole model. Scales are rounded to
    8 bits too (QLoRA's double quantisation). Embeddings, norms and head stay in float32.

    Args:
        source: a folder or hub id.
        computes_in: the format of the linear layers' products; their weights are converted to it for each product.
    Raises: as `loading.load_folder`, and EnvironmentFault for a model that bitsandbytes misreads on CPUs.
    """
    from bitsandbytes.nn import Linear4bit  # optional: only for model.lora.quantize=nf4

    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computes_in,
    )
    loaded = read_folder(source, attention, overrides, quantization=how, device=device)
    packed = [module for module in loaded.model.modules() if isinstance(module, Linear4bit)]
    if device.type == "cpu":
        _check_widths(source, [module.in_features for module in packed])
    for module in packed:
        # On CPUs that have bfloat16, the first forward in evaluation mode would pack the weight for a product without
        # a backward, and training would get no gradient through it.
        module.support_avx512bf16_for_cpu = False
    check_layout(loaded, source)
    return loaded


def _check_widths(source: str, widths: Sequence[int]) -> None:
    """Refuses matrices that bitsandbytes misreads on CPUs: some whose rows are no whole number of blocks (0.50.2)."""
    partial = [width for width in widths if width % BLOCK]
    if partial:
        raise EnvironmentFault(
            f"{source}: on CPUs bitsandbytes misreads 4-bit matrices whose inputs are no multiple of {BLOCK}, and one "
            f"here has {partial[0]}; run on a GPU, or type model.lora.quantize=none"
        )
