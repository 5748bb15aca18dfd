"""The model as training and evaluation run it: rows in, NLL of supervised tokens out."""

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
from erulab.models.head import head_of
from erulab.models.meter import Meter, token_counts
from erulab.models.packing import Packing, pack
from erulab.tokens.batch import Batch


@dataclass(frozen=True)
class ReferenceStates:
    """The states that a frozen model predicts some rows' supervised tokens from, and its head."""

    hidden: torch.Tensor  # (tokens, width), row-major
    head: logprobs.Head


class Reference(Protocol):
    """The frozen model before unlearning, for retain=kl: a copy, or the policy without its adapters."""

    @property
    def head(self) -> logprobs.Head: ...

    def hidden(self, batch: Batch) -> torch.Tensor: ...


@dataclass(frozen=True)
class ForwardLayout:
    """The layout of the rows in one forward, and the numbers of tokens it computes."""

    packing: Packing | None  # None: padded rows
    counts: TokenCounts


def reference_states(reference: Reference, batch: Batch, rows: int) -> ReferenceStates:
    """Runs a frozen model on the last `rows` rows of a batch, without gradient."""
    last = torch.arange(len(batch.row_ids) - rows, len(batch.row_ids), device=batch.input_ids.device)
    with torch.no_grad():
        return ReferenceStates(reference.hidden(batch.select(last)), reference.head)


class Policy(nn.Module):
    """A causal language model whose forward gives the NLL of supervised tokens only.

    It is the module that an engine wraps, so that ZeRO's hooks see one ordinary forward. Adversaries hook `blocks` and
    `norm`: the input of block l is h_l, the input of `norm` is h_L.
    """

    def __init__(self, model: PreTrainedModel, ledger: Ledger | None = None, adapters: Adapters = NO_ADAPTERS) -> None:
        """
        Args:
            ledger: adds up the cost of all forwards and backwards.
            adapters: of the model, if it has any; costs depend on them.
        """
        super().__init__()
        self.model = model
        self._meter = Meter(self._causal(), ledger or Ledger(), adapters)
        # Of the latest forward. Hooks inside the model see only its states, and gradient checkpointing runs them again
        # during backward: the layout must be known here until the next forward begins.
        self._latest = ForwardLayout(None, TokenCounts())
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
        blocks = _submodule(self._inner(), ("layers", "h"))
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def norm(self) -> nn.Module:
        return _submodule(self._inner(), ("norm", "final_layernorm", "ln_f"))

    @property
    def head(self) -> logprobs.Head:
        return head_of(self._causal())

    @property
    def output_matrix(self) -> nn.Module:
        """The linear layer inside `head`, whose weight DeepSpeed must know."""
        matrix: nn.Module = self._causal().get_output_embeddings()
        return matrix

    def forward(
        self, batch: Batch, reference: ReferenceStates | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes the NLL of the batch's supervised tokens, and KL(reference || policy) at the last of them.

        Args:
            batch: on this module's device.
            reference: the frozen model's states for the batch's last rows, for retain=kl.
        Returns:
            (tokens,) NLL in nats, row-major; (tokens of the reference,) KL in nats, or None without a reference.
        """
        hidden = self.hidden(batch)
        nll = logprobs.token_nll(hidden, self.head, batch.input_ids[batch.supervised])
        if torch.is_grad_enabled():
            self._meter.training(self._latest.counts)
        if reference is None:
            return nll, None
        states = hidden[len(hidden) - len(reference.hidden) :]
        self._meter.head_again(len(states))
        return nll, logprobs.token_kl(reference.hidden, reference.head, states, self.head)

    def hidden(self, batch: Batch, *, scoring: bool = False) -> torch.Tensor:
        """Computes the state that each supervised token is predicted from.

        Args:
            scoring: whether neither gradients are needed nor hooks edit states, so that more layouts are possible.
        Returns:
            (tokens, width), row-major.
        """
        packing = self._choose_packing(batch, scoring)
        if packing is None:
            return self.hidden_padded(batch)
        by_pieces = self._by_pieces()
        self._begin_forward(batch, packing, by_pieces)
        device = batch.input_ids.device
        # transformers takes a mask with four axes as it is. Attention by pieces does not read it.
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

    def hidden_padded(self, batch: Batch) -> torch.Tensor:
        """Computes `hidden` from padded rows, under the batch's own attention mask, which may have gaps."""
        self._begin_forward(batch, None, by_pieces=False)
        states = self._inner()(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        return states[:, :-1][batch.supervised[:, 1:]]

    def _begin_forward(self, batch: Batch, packing: Packing | None, by_pieces: bool) -> None:
        self._latest = ForwardLayout(packing, token_counts(batch, packing, by_pieces))
        self._meter.forward(self._latest.counts, self._first_block)

    @contextmanager
    def skip_blocks_below(self, layer: int) -> Iterator[None]:
        """Skips blocks 0..layer-1 inside the context.

        The caller must replace h_layer by a hook, for example with its cached value.
        """
        blocks = [self.blocks[i] for i in range(layer)]
        before = [block.__dict__.get("forward") for block in blocks]
        try:
            for block in blocks:
                block.forward = _identity_block
            self._first_block = layer
            yield
        finally:
            self._first_block = 0
            for block, forward in zip(blocks, before, strict=True):
                del block.forward
                if forward is not None:  # a compiled one
                    block.forward = forward

    def state_gradient(self, loss: torch.Tensor, states: torch.Tensor, layer: int) -> torch.Tensor:
        """Computes the gradient of `loss` with respect to `states`, which were added to h_layer.

        The gradients of parameters stay untouched.
        """
        self._meter.state_gradient(self._latest.counts, layer)
        return torch.autograd.grad(loss, states)[0]

    def unpack_states(self, states: torch.Tensor) -> torch.Tensor:
        """Returns states inside the latest forward as (rows, length, width), whatever its layout."""
        packing = self._latest.packing
        return states if packing is None else packing.unpack(states)

    def pack_states(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns (rows, length, width) states in the layout of the latest forward: the inverse of `unpack_states`."""
        packing = self._latest.packing
        return rows if packing is None else packing.pack(rows)

    def compile_blocks(self) -> None:
        """Compiles each block by itself, so that hooks on blocks, and what runs between blocks, stay as they are.

        From now on rows are padded, because a block would be compiled again for the pieces of every packed batch.
        """
        self._compiled = True
        for block in self.blocks:
            block.forward = torch.compile(block.forward, dynamic=True)

    def row_nll(self, batch: Batch) -> torch.Tensor:
        """Computes the (rows,) sequence NLL in nats."""
        nll, _ = self(batch)
        return logprobs.row_sums(nll, batch.supervised)

    def shares_openings(self, length: int) -> bool:
        """Tells whether scoring computes a common opening of rows of up to `length` tokens once; otherwise it pads."""
        config = self._causal().config
        return not self._compiled and (self._by_pieces() or reads_trees(config, length))

    def _choose_packing(self, batch: Batch, scoring: bool) -> Packing | None:
        """Returns how to lay out the rows without padding; None if padded rows are as fast."""
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
        """Tells whether packed rows run with one attention call per piece. On GPUs one call over all is faster."""
        return self.device.type == "cpu" and self._causal().config._attn_implementation == PACKED

    def _causal(self) -> PreTrainedModel:
        # peft wraps the causal model.
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _inner(self) -> nn.Module:
        causal = self._causal()
        return getattr(causal, causal.base_model_prefix)


def _identity_block(states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return states


def _submodule(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        found = getattr(module, name, None)
        if isinstance(found, nn.Module):
            return found
    raise TypeError(f"{type(module).__name__} has none of {', '.join(names)}: its layout is not known to erulab")


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout rate to zero, so that training mode (which gradient checkpointing needs) drops nothing."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Rates that layers keep as plain numbers; Mixtral's multiplies what its experts read by random numbers.
        for name in ("attention_dropout", "dropout", "jitter_noise"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
