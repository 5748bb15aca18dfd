"""The model as training and evaluation see it: rows in, NLL of supervised tokens out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from erulab import logprobs
from erulab.data.encoding import Batch


class Policy(nn.Module):
    """A causal language model whose forward gives the NLL of supervised tokens only.

    It is the module an engine wraps, so that ZeRO's hooks see one ordinary forward. `blocks` and `norm` are
    where adversaries hook: the input of block l is h_l, the input of `norm` is h_L.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def blocks(self) -> nn.ModuleList:
        blocks = _find(self._inner(), ("layers", "h"))
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def norm(self) -> nn.Module:
        return _find(self._inner(), ("norm", "final_layernorm", "ln_f"))

    @property
    def head(self) -> logprobs.Head:
        head: nn.Module = self._causal().get_output_embeddings()
        return head

    def forward(
        self, batch: Batch, reference: Policy | None = None, kl_rows: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """NLL of the batch's supervised tokens, and KL to a frozen reference over the last rows.

        Args:
            batch: on this module's device.
            reference: frozen policy for retain kl; kl_rows: how many rows, from the end, the KL is taken on.
        Returns:
            (tokens,) NLL in nats in row-major order; (tokens of the last kl_rows rows,) KL, or None.
        """
        hidden = self.hidden(batch)
        nll = logprobs.token_nll(hidden, self.head, batch.input_ids[batch.supervised])
        if reference is None:
            return nll, None
        first = len(batch.row_ids) - kl_rows
        rows = batch.select(torch.arange(first, len(batch.row_ids), device=batch.input_ids.device))
        with torch.no_grad():
            ref_hidden = reference.hidden(rows)
        kl = logprobs.token_kl(ref_hidden, reference.head, hidden[len(hidden) - len(ref_hidden) :], self.head)
        return nll, kl

    def hidden(self, batch: Batch) -> torch.Tensor:
        """(tokens, width): the state each supervised token is predicted from, row-major."""
        states = self._inner()(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        return states[:, :-1][batch.supervised[:, 1:]]

    def row_nll(self, batch: Batch) -> torch.Tensor:
        """(rows,) sequence NLL in nats."""
        nll, _ = self(batch)
        return logprobs.row_sums(nll, batch.supervised)

    def _causal(self) -> PreTrainedModel:
        # A peft wrapper keeps the causal model one floor down.
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _inner(self) -> nn.Module:
        causal = self._causal()
        return getattr(causal, causal.base_model_prefix)


def _find(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        found = getattr(module, name, None)
        if isinstance(found, nn.Module):
            return found
    raise TypeError(f"{type(module).__name__} has none of {', '.join(names)}: its layout is not known to erulab")


def without_dropout(model: nn.Module) -> None:
    """Sets every dropout rate to zero, so that training mode (which gradient checkpointing needs) drops nothing."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):  # rates that attention layers keep as plain numbers
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
