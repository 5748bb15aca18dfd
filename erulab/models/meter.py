"""Counts the tokens and FLOPs that a policy runs, and adds them to the run's ledger."""

from __future__ import annotations

from transformers import PreTrainedModel

from erulab.costs.families import is_known
from erulab.costs.flops import Backward, TokenCounts
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import Adapters, ModelShape
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
        config = model.config.to_dict()
        self._shape = ModelShape.from_config(config) if is_known(config) else None

    def forward(self, rows: TokenCounts, layer: int) -> None:
        """Adds a forward through the blocks from `layer` on."""
        self.ledger.add_forward(self._shape, rows, layer=layer, adapters=self._adapters)

    def training(self, rows: TokenCounts) -> None:
        """Adds the backward that follows a training forward."""
        if not self.ledger.of_adversary:
            kind = Backward.lora if self._adapters.rank else Backward.full
            again = self._model.is_activation_checkpointing
            self.ledger.add_backward(self._shape, rows, kind, adapters=self._adapters, checkpointing=again)

    def state_gradient(self, rows: TokenCounts, layer: int) -> None:
        """Adds a backward down to the input of block `layer`, for the gradient of a state there."""
        self.ledger.add_backward(
            self._shape,
            rows,
            Backward.activations,
            layer=layer,
            adapters=self._adapters,
            checkpointing=self._model.is_activation_checkpointing,
        )

    def head_again(self, positions: int) -> None:
        """Adds one more forward and backward of the head alone at so many positions."""
        rows = TokenCounts(supervised=positions)
        self.ledger.add_forward(self._shape, rows)
        self.ledger.add_backward(self._shape, rows, Backward.lora if self._adapters.rank else Backward.full)
