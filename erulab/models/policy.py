"""The model as training and evaluation see it: rows in, NLL of supervised tokens out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from erulab import logprobs
from erulab.costs.flops import TokenCounts
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import NO_ADAPTERS, Adapters
from erulab.models.attention import PACKED, reads_trees
from erulab.models.meter import Meter, rows_of
from erulab.models.packing import Packing, pack
from erulab.tokens.batch import Batch


@dataclass(frozen=True)
class ReferenceStates:
    """What a frozen model makes of some rows: (tokens, width) states of their supervised tokens, and its head."""

    hidden: torch.Tensor
    head: logprobs.Head


class Reference(Protocol):
    """The frozen model before unlearning, for retain kl: a copy, or the policy without its adapters."""

    @property
    def head(self) -> logprobs.Head: ...

    def hidden(self, batch: Batch) -> torch.Tensor: ...


def reference_states(reference: Reference, batch: Batch, rows: int) -> ReferenceStates:
    """What the reference makes of the batch's last rows, without gradient."""
    last = torch.arange(len(batch.row_ids) - rows, len(batch.row_ids), device=batch.input_ids.device)
    with torch.no_grad():
        return ReferenceStates(reference.hidden(batch.select(last)), reference.head)


class Policy(nn.Module):
    """A causal language model whose forward gives the NLL of supervised tokens only.

    It is the module an engine wraps, so that ZeRO's hooks see one ordinary forward. `blocks` and `norm` are
    where adversaries hook: the input of block l is h_l, the input of `norm` is h_L.
    """

    def __init__(self, model: PreTrainedModel, ledger: Ledger | None = None, adapters: Adapters = NO_ADAPTERS) -> None:
        """`ledger`: where all that is run here is added up; `adapters`: that the model carries."""
        super().__init__()
        self.model = model
        self._meter = Meter(self._causal(), ledger or Ledger(), adapters)
        # Of the latest forward: how its rows were laid out, and what they cost.
        self._packing: Packing | None = None
        self._rows = TokenCounts()
        self._first_block = 0
        self._compiled = False

    @property
    def ledger(self) -> Ledger:
        return self._meter.ledger

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
        self, batch: Batch, reference: ReferenceStates | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """NLL of the batch's supervised tokens, and KL to a frozen reference over the last of them.

        Args:
            batch: on this module's device.
            reference: the frozen model's states for the batch's last rows, for retain kl.
        Returns:
            (tokens,) NLL in nats in row-major order; (tokens of the reference,) KL, or None.
        """
        hidden = self.hidden(batch)
        nll = logprobs.token_nll(hidden, self.head, batch.input_ids[batch.supervised])
        if torch.is_grad_enabled():
            self._meter.training(self._rows)
        if reference is None:
            return nll, None
        states = hidden[len(hidden) - len(reference.hidden) :]
        self._meter.head_again(len(states))
        return nll, logprobs.token_kl(reference.hidden, reference.head, states, self.head)

    def hidden(self, batch: Batch, *, scoring: bool = False) -> torch.Tensor:
        """(tokens, width): the state each supervised token is predicted from, row-major.

        Args:
            scoring: no gradient is wanted, and nobody edits states on the way.
        """
        packing = self._pack(batch, scoring)
        if packing is None:
            return self.padded(batch)
        by_pieces = self._by_pieces()
        self._begin(batch, packing, by_pieces)
        device = batch.input_ids.device
        # A mask of four axes is taken as it is. Attention by pieces never looks at it.
        how = (
            {"attention_mask": torch.zeros(1, 1, 1, 1), "pieces": packing.pieces}
            if by_pieces
            else {"attention_mask": packing.mask().to(device)}
        )
        states = self._inner()(
            input_ids=torch.tensor([packing.ids], device=device),
            position_ids=torch.tensor([packing.positions], device=device),
            use_cache=False,
            **how,
        ).last_hidden_state
        return states[0][packing.index.to(device)[:, :-1][batch.supervised[:, 1:]]]

    def padded(self, batch: Batch) -> torch.Tensor:
        """As `hidden`, from rows that are padded as they stand, under the batch's own mask: that may have holes."""
        self._begin(batch, None, by_pieces=False)
        states = self._inner()(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        return states[:, :-1][batch.supervised[:, 1:]]

    def _begin(self, batch: Batch, packing: Packing | None, by_pieces: bool) -> None:
        self._packing = packing
        self._rows = rows_of(batch, packing, by_pieces)
        self._meter.forward(self._rows, self._first_block)

    @contextmanager
    def skip_blocks_below(self, layer: int) -> Iterator[None]:
        """Forwards inside run no block below `layer`: whoever edits h_layer puts there what those would give."""
        blocks = [self.blocks[i] for i in range(layer)]
        before = [block.__dict__.get("forward") for block in blocks]
        try:
            for block in blocks:
                block.forward = _hand_on
            self._first_block = layer
            yield
        finally:
            self._first_block = 0
            for block, forward in zip(blocks, before, strict=True):
                del block.forward
                if forward is not None:  # a compiled one
                    block.forward = forward

    def state_gradient(self, loss: torch.Tensor, states: torch.Tensor, layer: int) -> torch.Tensor:
        """The gradient of `loss` with respect to what was added to h_layer; parameters keep theirs, untouched."""
        self._meter.state_gradient(self._rows, layer)
        return torch.autograd.grad(loss, states)[0]

    def rows_of(self, states: torch.Tensor) -> torch.Tensor:
        """States inside the latest forward as (rows, length, width), however the rows were laid out for it."""
        return states if self._packing is None else self._packing.rows(states)

    def states_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, length, width) in the layout of the latest forward: the inverse of `rows_of`."""
        return rows if self._packing is None else self._packing.packed(rows)

    def compile_blocks(self) -> None:
        """Compiles each block by itself: hooks on blocks and all between them stay as they are.

        Rows are padded from now on: the pieces of packed ones would be compiled in anew for every batch.
        """
        self._compiled = True
        for block in self.blocks:
            block.forward = torch.compile(block.forward, dynamic=True)

    def row_nll(self, batch: Batch) -> torch.Tensor:
        """(rows,) sequence NLL in nats."""
        nll, _ = self(batch)
        return logprobs.row_sums(nll, batch.supervised)

    def shares_openings(self, length: int) -> bool:
        """Whether scoring computes what rows of up to `length` tokens have in common once; otherwise it pads them."""
        config = self._causal().config
        return not self._compiled and (self._by_pieces() or reads_trees(config, length))

    def _pack(self, batch: Batch, scoring: bool) -> Packing | None:
        """How to lay out the rows without padding; None where padded rows are as fast."""
        width = self._causal().config.hidden_size
        if self._compiled:
            return None
        if self._by_pieces():
            packing = pack(batch)
            return packing if packing.worth(width) else None
        if not scoring or not self.shares_openings(batch.input_ids.shape[1]):
            return None
        packing = pack(batch)
        return packing if packing.worth_in_one_call(width) else None

    def _by_pieces(self) -> bool:
        """Whether packed rows run with an attention call a piece. On GPUs one call, masked or padded, is faster."""
        return self.device.type == "cpu" and self._causal().config._attn_implementation == PACKED

    def _causal(self) -> PreTrainedModel:
        # A peft wrapper keeps the causal model one floor down.
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _inner(self) -> nn.Module:
        causal = self._causal()
        return getattr(causal, causal.base_model_prefix)


def _hand_on(states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return states


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
