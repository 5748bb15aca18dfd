"""Counts the tokens and FLOPs that a policy runs, and adds them to the run's ledger."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from erulab.costs import flops
from erulab.costs.backward import Gradients, backward, recomputed, state_backward
from erulab.costs.families import is_known
from erulab.costs.flops import TokenCounts
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import Adapters, ModelShape
from erulab.costs.trained import trained_weights
from erulab.models.packing import Packing
from erulab.tokens.batch import Batch


def token_counts(batch: Batch, packing: Packing | None, by_pieces: bool) -> TokenCounts:
    """Counts what a forward over a batch computes.

    Args:
        packing: None for padded rows.
        by_pieces: whether packed rows run with one attention call per piece, otherwise with one masked call.
    """
    supervised = int(batch.supervised[:, 1:].sum())
    if packing is None:
        rows, length = batch.input_ids.shape
        return TokenCounts.of([length] * rows, supervised)
    if not by_pieces:
        return TokenCounts.of([len(packing.ids)], supervised)
    seen = [piece.length + sum(packing.pieces[i].length for i in piece.before) for piece in packing.pieces]
    squares = sum(piece.length * n for piece, n in zip(packing.pieces, seen, strict=True))
    return TokenCounts(len(packing.pieces), len(packing.ids), squares, supervised)


class Meter:
    """Writes one model's forwards and backwards into a ledger."""

    def __init__(self, model: PreTrainedModel, ledger: Ledger, adapters: Adapters) -> None:
        """`model`: the causal model itself, not a wrapper; `adapters`: those in it."""
        self._model, self.ledger, self._adapters = model, ledger, adapters
        config = model.config
        self._shape = ModelShape.from_config(config.to_dict()) if is_known(config.model_type) else None

    def forward(self, rows: TokenCounts, layer: int = 0, last: int | None = None) -> None:
        """Adds a forward through the blocks from `layer` on, to the input of block `last` or through all of them.

        Args:
            rows: what it computes; its supervised positions are read by the head.
        """
        cost = math.nan
        if self._shape is not None:
            cost = flops.forward(self._shape, rows, layer=layer, last=last, adapters=self._adapters)
        self.ledger.add_forward(rows, cost)

    def training(self, rows: TokenCounts, last: int | None = None) -> None:
        """Adds the backward that follows a training forward.

        Args:
            rows, last: as for `forward`.
        """
        if self.ledger.trains:
            self.ledger.add_backward(math.nan if self._shape is None else self._backward(self._shape, rows, last))

    def head(self, states: torch.Tensor) -> None:
        """Adds a forward of the head at (positions, width) states, and its backward where they require a gradient."""
        positions = TokenCounts(supervised=len(states))
        self.forward(positions)
        if torch.is_grad_enabled() and self.ledger.trains:
            cost = math.nan
            if self._shape is not None:
                products = states.requires_grad + self._gradients(self._shape).trained.head
                cost = products * flops.head_flops(self._shape, len(states))
            self.ledger.add_backward(cost)

    def reference_head(self, positions: int) -> None:
        """Adds a forward of the reference's head, without gradient."""
        self.forward(TokenCounts(supervised=positions))

    def state_gradient(self, rows: TokenCounts, layer: int) -> None:
        """Adds a backward down to the input of block `layer`, for the gradient of a state there."""
        cost = math.nan
        if self._shape is not None:
            again = self._model.is_activation_checkpointing
            cost = state_backward(self._shape, rows, layer, adapters=self._adapters, checkpointing=again)
        self.ledger.add_backward(cost)

    def _backward(self, shape: ModelShape, rows: TokenCounts, last: int | None) -> float:
        gradients = self._gradients(shape)
        again = recomputed(shape, rows, gradients, last=last) if gradients.checkpointing else 0.0
        return backward(shape, rows, gradients, last=last) + again

    def _gradients(self, shape: ModelShape) -> Gradients:
        names = tuple(name for name, parameter in self._model.named_parameters() if parameter.requires_grad)
        return Gradients(trained_weights(shape, names), self._adapters, self._model.is_activation_checkpointing)
