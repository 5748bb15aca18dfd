"""The map from final hidden states to logits: the output matrix, and what some families do to its result."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from erulab.logprobs import Head


def head_of(model: PreTrainedModel) -> Head:
    """Returns the map from (n, width) final hidden states to the (n, vocabulary) logits that the model predicts with.

    Gemma 2 and 3 cap logits, Granite divides and Cohere multiplies them, each after the output matrix and under a key
    of its config.json; `check_layout` compares the result with the model's own logits.

    Args:
        model: the causal model itself, not a wrapper.
    """
    linear: Any = model.get_output_embeddings()
    config: Any = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    divisor, factor = getattr(config, "logits_scaling", 1), getattr(config, "logit_scale", 1)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        # ZeRO-3 hooks modules and compares their calls on all processes, which have different numbers of chunks: while
        # the weight is whole, as in a policy's forward (training/zero.py), it is read past the module.
        whole = linear.weight.numel() > 0
        logits = torch.nn.functional.linear(hidden, linear.weight, linear.bias) if whole else linear(hidden)
        # The order of transformers' own operations, and its number format: the same logits bit for bit.
        if divisor != 1:
            logits = logits / divisor
        if factor not in (1, None):
            logits = logits * factor
        return logits if cap is None else torch.tanh(logits / cap) * cap

    return head
